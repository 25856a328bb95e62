"""One libtorrent session, run as a script on each host: `libtorrent_peer.py CONFIGURATION`.

The configuration is JSON: torrent, folder, address, seeding, peers (addresses to connect to), settings. Lines on
stdin: `go` starts the download. Lines on stdout: `ready`, `done`.
"""

import json
import sys
from typing import Any

import libtorrent as lt

PORT = 6881
STEP_MILLISECONDS = 1000
CATEGORIES = (
    lt.alert.category_t.status_notification
    | lt.alert.category_t.storage_notification
    | lt.alert.category_t.error_notification
)


def main() -> None:
    """Runs until killed."""
    configuration: dict[str, Any] = json.loads(sys.argv[1])
    session = lt.session(
        {
            **lt.high_performance_seed(),
            **configuration["settings"],
            "listen_interfaces": f"{configuration['address']}:{PORT}",
            "alert_mask": CATEGORIES,
        }
    )
    wanted = lt.add_torrent_params()
    wanted.ti = lt.torrent_info(configuration["torrent"])
    wanted.save_path = configuration["folder"]
    # Not paused, and not put off by the session's queue.
    wanted.flags &= ~(lt.torrent_flags.auto_managed | lt.torrent_flags.paused)
    if configuration["seeding"]:
        if configuration["super_seeding"]:
            wanted.flags |= lt.torrent_flags.super_seeding
        wanted.flags |= lt.torrent_flags.seed_mode  # complete: no need to read all of it
        add(session, wanted, configuration)
        say("ready")
    else:
        say("ready")
        sys.stdin.readline()
        handle = add(session, wanted, configuration)
        until(session, lt.torrent_finished_alert)
        # Every piece is here and has the digest it should have; the last ones may still wait for the disk.
        handle.flush_cache()
        until(session, lt.cache_flushed_alert)
        say("done")
    while True:
        session.wait_for_alert(STEP_MILLISECONDS)
        session.pop_alerts()


def add(session: Any, wanted: Any, configuration: dict[str, Any]) -> Any:
    """The torrent runs; every other peer is connected to without waiting for the tracker."""
    handle = session.add_torrent(wanted)
    for address in configuration["peers"]:
        handle.connect_peer((address, PORT))
    return handle


def until(session: Any, awaited: type) -> None:
    """Returns when the session reports this. Errors go to the log."""
    while True:
        session.wait_for_alert(STEP_MILLISECONDS)
        for alert in session.pop_alerts():
            if isinstance(alert, awaited):
                return
            if alert.category() & lt.alert.category_t.error_notification:
                sys.stderr.write(f"{alert.message()}\n")


def say(line: str) -> None:
    """A line to the benchmark."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
