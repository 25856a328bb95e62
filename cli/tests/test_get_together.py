"""`minga get` of many small files: handed to the daemon together; what gives trouble is fetched one by one as ever."""

from pathlib import Path

import pytest

from minga_core.errors import NameTakenError

from .conftest import FakeDaemon, FakeLocator, Minga

LARGE = 256 * 1024 + 1


@pytest.fixture
def folder(locator: FakeLocator, daemon: FakeDaemon) -> dict[str, bytes]:
    """Four files of a folder, one of them larger than a chunk."""
    contents = {"d/a": b"aa", "d/empty": b"", "d/large": bytes(LARGE), "d/sub/b": b"bbb"}
    for name, data in contents.items():
        locator.share(name, len(data))
    daemon.contents = contents
    return contents


def asked_alone(daemon: FakeDaemon) -> list[str]:
    """Names that were asked for one by one."""
    return sorted(request.name for request in daemon.asked)


def test_small_files_go_together_and_large_ones_alone(
    minga_with_daemon: Minga, daemon: FakeDaemon, folder: dict[str, bytes]
) -> None:
    """One summary of all; the second time everything is there already."""
    ended = minga_with_daemon("get", "d/")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith("4 files fetched: 256 KiB in ")
    assert ended.out.endswith(" from 2 peers\n")
    assert daemon.asked_together == [["d/a", "d/empty", "d/sub/b"]]
    assert asked_alone(daemon) == ["d/large"]
    assert minga_with_daemon("get", "d/").out.startswith("0 files fetched, 4 already there: ")


def test_several_names_go_together(minga_with_daemon: Minga, daemon: FakeDaemon, folder: dict[str, bytes]) -> None:
    """Their sizes are not known beforehand: the daemon leaves what is large."""
    assert minga_with_daemon("get", "d/large", "d/a").out.startswith("2 files fetched: ")
    assert daemon.asked_together == [["d/large", "d/a"]]
    assert asked_alone(daemon) == ["d/large"]


def test_one_file_goes_alone(minga_with_daemon: Minga, daemon: FakeDaemon, folder: dict[str, bytes]) -> None:
    """With its progress, its version, and its words."""
    assert minga_with_daemon("get", "d/a").code == 0
    assert (daemon.asked_together, asked_alone(daemon)) == ([], ["d/a"])


def test_what_gives_trouble_is_told_as_ever(
    minga_with_daemon: Minga, daemon: FakeDaemon, folder: dict[str, bytes]
) -> None:
    """It is asked for alone, and its error has its line and its exit code; the others arrive."""
    daemon.errors["d/a"] = NameTakenError("d/a is here with another content", hint="--overwrite replaces it")
    ended = minga_with_daemon("get", "d/", "--wait", "5")
    assert ended.code == 4
    assert ended.out.startswith("3 files fetched, 1 failed: ")
    assert ended.err.startswith("minga: d/a: d/a is here with another content")
    assert asked_alone(daemon) == ["d/a", "d/large"]
    assert all(request.source_wait.seconds == 5 for request in daemon.asked)


def test_a_path_gets_copies(
    minga_with_daemon: Minga, daemon: FakeDaemon, folder: dict[str, bytes], tmp_path: Path
) -> None:
    """As for one file: what the shared folder has is copied, and another content is not overwritten."""
    out = tmp_path / "out"
    out.mkdir()
    assert minga_with_daemon("get", "d/", "-o", str(out)).out.startswith("4 files fetched: ")
    assert {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()} == folder
    assert asked_alone(daemon) == ["d/large"]
    (out / "d/sub/b").write_bytes(b"mine")
    (out / "d/large").unlink()
    ended = minga_with_daemon("get", "d/", "-o", str(out))
    assert ended.code == 4
    assert ended.out.startswith("1 file fetched, 2 already there, 1 failed: ")
    assert ended.err.startswith(f"minga: d/sub/b: {out / 'd/sub/b'} exists and is another content")
    assert (out / "d/sub/b").read_bytes() == b"mine"


def test_an_older_daemon_is_asked_one_by_one(
    minga_with_daemon: Minga, daemon: FakeDaemon, folder: dict[str, bytes]
) -> None:
    """It does not know the call; everything arrives all the same."""
    daemon.old = True
    assert minga_with_daemon("get", "d/").out.startswith("4 files fetched: ")
    assert asked_alone(daemon) == sorted(folder)


def test_more_names_than_a_call_takes_are_cut(
    minga_with_daemon: Minga, daemon: FakeDaemon, locator: FakeLocator
) -> None:
    """A thousand at a time."""
    locator.page = 1000
    for number in range(1001):
        locator.share(f"m/{number:04}", 1)
    daemon.contents = {f"m/{number:04}": b"x" for number in range(1001)}
    assert minga_with_daemon("get", "m/").out.startswith("1,001 files fetched: ")
    assert [len(names) for names in daemon.asked_together] == [1000, 1]
    assert daemon.asked == []
