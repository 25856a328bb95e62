"""`minga peers` and `minga status`."""

import json

from minga_cli.output import local_time
from minga_protos.control.v1 import control_pb2 as pb

from .conftest import FakeDaemon, FakeLocator, Minga

PEER = {
    "peer_id": "peer-1",
    "address": "10.0.0.1:50053",
    "zone": "",
    "capacity_bytes": 10 << 30,
    "free_bytes": 5 << 30,
    "file_count": 1234,
    "active_serves": 2,
    "software_version": "0.1.0",
    "gateway_url": "",
    "lease_remaining_seconds": 12.25,
}


def test_peers_prints_aligned_columns(minga: Minga, locator: FakeLocator) -> None:
    """Piped output is plain; every page is read."""
    locator.peers = [PEER, {**PEER, "peer_id": "long-peer-name", "zone": "rack-1"}, {**PEER, "peer_id": "z"}]
    assert minga("peers").out == (
        "PEER            ADDRESS         ZONE     FREE  CAPACITY  FILES  SERVES  LEASE\n"
        "peer-1          10.0.0.1:50053  -       5 GiB    10 GiB  1,234       2   12 s\n"
        "long-peer-name  10.0.0.1:50053  rack-1  5 GiB    10 GiB  1,234       2   12 s\n"
        "z               10.0.0.1:50053  -       5 GiB    10 GiB  1,234       2   12 s\n"
    )


def test_peers_json_has_every_field(minga: Minga, locator: FakeLocator) -> None:
    """The documented shape."""
    locator.peers = [PEER]
    assert json.loads(minga("peers", "--json").out) == {"peers": [PEER]}


def test_status_tells_what_the_daemon_does(minga_with_daemon: Minga, daemon: FakeDaemon) -> None:
    """All that a person asks first; a file name with escapes in it is made safe."""
    daemon.downloads = [
        pb.TransferStatus(
            name="big.iso", size_bytes=4096, held_bytes=1024, rate_bytes_per_second=512, active_source_count=3
        )
    ]
    assert minga_with_daemon("status").out.splitlines() == [
        "lab-7",
        "serves    10.0.0.7:50053, up 1 min 15 s, pid 77, version 0.1.0",
        f"shares    {daemon.share_dir}: 12 files, 3 MiB, 1 GiB free",
        "registry  reg:50051  lease: lives",
        f"locator   {daemon.locator}",
        "announced 1 change not yet announced to the registry",
        "traffic   2 KiB sent, 1 KiB received, 1 chunk being served",
        "hashing   1 file to go",
        f"problem   files that cannot be read are not shared (unreadable, since {local_time(1_700_000_000 * 10**9)})",
        "          a\ufffd[31m.bin: permission denied",
        "          … and 6 more",
        "DOWNLOAD   HELD   SIZE     RATE  SOURCES",
        "big.iso   1 KiB  4 KiB  512 B/s        3",
    ]


def test_status_of_a_machine_without_a_network(minga_with_daemon: Minga, daemon: FakeDaemon) -> None:
    """Others cannot reach its daemon; this machine's commands can."""
    daemon.address = ""
    assert minga_with_daemon("status").out.splitlines()[1].startswith("serves    no address yet, up ")
    assert json.loads(minga_with_daemon("status", "--json").out)["address"] == ""


def test_status_json_has_every_field(minga_with_daemon: Minga, daemon: FakeDaemon) -> None:
    """The documented shape, one document."""
    daemon.limit_up = 50 << 20
    status = json.loads(minga_with_daemon("status", "--json").out)
    assert (status["limit_up_bytes_per_second"], status["limit_down_bytes_per_second"]) == (50 << 20, 0)
    assert "limits    50 MiB/s up, none down" in minga_with_daemon("status").out
    assert status["peer_id"] == "lab-7"
    assert status["uptime_seconds"] == 75
    assert status["downloads"] == []
    assert status["conditions"] == [
        {
            "kind": "unreadable",
            "count": 7,
            "examples": ["a\x1b[31m.bin: permission denied"],
            "begin_time": "2023-11-14T22:13:20.000000Z",
            "text": "files that cannot be read are not shared",
        }
    ]
    assert status["share_dir"] == str(daemon.share_dir)


def test_status_without_a_daemon_is_5_and_says_how_to_start_one(minga: Minga) -> None:
    """One line, and the way out."""
    ended = minga("status")
    assert (ended.code, ended.out) == (5, "")
    assert ended.err == "minga: no peer runs on this machine (start one with `minga peer --share DIR`)\n"
