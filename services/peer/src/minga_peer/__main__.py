"""`python -m minga_peer`: the daemon. `minga peer` replaces itself with this."""

import sys
from types import SimpleNamespace

DESCRIPTION = "Shares a folder and fetches into it, until SIGTERM or Ctrl-C, which leave the network in order."


def main() -> int:
    """Run a peer until SIGTERM or Ctrl-C; the exit code (see `minga_runtime.process.run_process`)."""
    # As in the command: httpx imports its own command line, with rich and pygments, where those are installed, and
    # Pydantic what it searches for plugins with. All of that would be in memory for as long as the peer runs.
    sys.modules["httpx._main"] = None  # type: ignore[assignment]
    sys.modules["pydantic.plugin._loader"] = SimpleNamespace(get_plugins=tuple)  # type: ignore[assignment]
    from minga_core.errors import SettingsError
    from minga_peer.daemon.main import run_daemon
    from minga_peer.settings import PeerSettings
    from minga_runtime.flags import parse_flags
    from minga_runtime.process import exit_code_for, print_error
    from minga_runtime.settings import load_settings

    flags = parse_flags(PeerSettings, "minga peer", DESCRIPTION, aliases={"share_dir": "--share"})
    try:
        return run_daemon(load_settings(PeerSettings, **flags))
    except SettingsError as error:
        print_error(error)
        return exit_code_for(error)


if __name__ == "__main__":
    sys.exit(main())
