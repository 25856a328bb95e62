"""`minga verify`."""

import json

from minga_core.errors import AlreadyRunningError
from minga_protos.control.v1 import control_pb2 as pb

from .conftest import FakeDaemon, Minga

BAD = [
    pb.BadFile(name="data/a\u202eb", why="chunk 3 of data/a\u202eb is not what was hashed"),
    pb.BadFile(name="b", why="b cannot be read: input/output error", unreadable=True),
]


def script(daemon: FakeDaemon, *bad: pb.BadFile) -> None:
    """A verification of two files in two steps."""
    daemon.verification = [
        pb.VerifyFilesResponse(file_count=2, checked_count=1, bad_files=bad[:1]),
        pb.VerifyFilesResponse(file_count=2, checked_count=2, bad_files=bad[1:]),
    ]


def test_verify_of_good_files_is_0(minga_with_daemon: Minga, daemon: FakeDaemon) -> None:
    """One line."""
    script(daemon)
    ended = minga_with_daemon("verify")
    assert (ended.code, ended.out, ended.err) == (0, "2 files, 1 MiB verified: all good\n", "")


def test_verify_that_finds_damage_is_7_and_names_the_files(minga_with_daemon: Minga, daemon: FakeDaemon) -> None:
    """Each with its reason; names cannot turn other text."""
    script(daemon, *BAD)
    ended = minga_with_daemon("verify")
    assert ended.code == 7
    assert ended.out.splitlines() == [
        "damaged  data/a\ufffdb: chunk 3 of data/a\ufffdb is not what was hashed",
        "unreadable  b: b cannot be read: input/output error",
        "2 files, 1 MiB verified: 2 not good",
    ]


def test_verify_has_a_prefix_and_json(minga_with_daemon: Minga, daemon: FakeDaemon) -> None:
    """The documented shape, one document."""
    script(daemon, *BAD)
    ended = minga_with_daemon("verify", "b", "--json")
    assert ended.code == 7
    assert json.loads(ended.out) == {
        "file_count": 2,
        "checked_bytes": 1 << 20,
        "bad_files": [{"name": "b", "why": "b cannot be read: input/output error", "unreadable": True}],
    }


def test_a_second_verify_is_8(minga_with_daemon: Minga, daemon: FakeDaemon) -> None:
    """The daemon's own words."""
    daemon.errors[""] = AlreadyRunningError("another verification is under way")
    ended = minga_with_daemon("verify")
    assert (ended.code, ended.err) == (8, "minga: another verification is under way\n")


def test_verify_without_a_daemon_is_5(minga: Minga) -> None:
    """Nobody shares a folder here."""
    ended = minga("verify")
    assert (ended.code, ended.out) == (5, "")
    assert ended.err == "minga: no peer runs on this machine (start one with `minga peer --share DIR`)\n"


def test_status_shows_the_scrub(minga_with_daemon: Minga, daemon: FakeDaemon) -> None:
    """When all was read, and how far it is; nothing where it is off."""
    assert "scrub  " not in minga_with_daemon("status").out
    daemon.scrub = pb.ScrubStatus(under_way=True, read_bytes=1 << 20)
    daemon.scrub.period.FromSeconds(86400)
    shown = minga_with_daemon("status").out
    assert "scrub     no pass ended yet, 1 MiB of 3 MiB in this pass" in shown
    daemon.scrub.last_end_time.FromSeconds(60)
    daemon.scrub.under_way = False
    assert "scrub     all was read by 1970-01-01 00:01" in minga_with_daemon("status").out
    assert json.loads(minga_with_daemon("status", "--json").out)["scrub"] == {
        "period_seconds": 86400,
        "last_end_time": "1970-01-01T00:01:00.000000Z",
        "under_way": False,
        "read_bytes": 1 << 20,
    }
