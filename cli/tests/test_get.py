"""`minga get`: through the daemon, alone, and of many files."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from minga import DownloadPhase, FetchItem, Progress, parse_peer_id
from minga.errors import AlreadyRunningError, NameTakenError, NoSourcesError, NoSpaceError, StorageError
from minga_engine.wire.control import MAX_NAMES

from .conftest import FakeDaemon, FakeLocator, Minga, content_id


class FakeFetcher:
    """Stands for StandaloneFetcher: writes the name into the target. Remembers what was asked of it."""

    alone: list[str]
    together: list[list[str]]
    waits: list[timedelta | None]

    def __init__(self, engine: Any, options: Any) -> None:
        self.waits.append(options.wait)

    async def fetch_small(
        self, batches: AsyncIterator[list[FetchItem]], on_done: Callable[[FetchItem, Progress], None]
    ) -> None:
        """Every other file can be fetched together."""
        async for items in batches:
            self.together.append([item.name for item in items])
            for item in items[::2]:
                if not item.name.endswith("bad"):
                    on_done(item, await self._write(item, Progress(DownloadPhase.DONE, 100, 100)))

    async def fetch(self, item: FetchItem, on_progress: Callable[[Progress], None]) -> Progress:
        self.alone.append(item.name)
        if item.name.endswith("bad"):
            raise NoSourcesError(f"no source of {item.name} was reachable")
        on_progress(Progress(DownloadPhase.FETCHING, 100, 50))
        last = Progress(DownloadPhase.DONE, 100, 100, 40, {parse_peer_id("peer-1"): 60}, path=item.target)
        return await self._write(item, last)

    async def _write(self, item: FetchItem, last: Progress) -> Progress:
        assert item.target is not None
        await asyncio.to_thread(item.target.parent.mkdir, parents=True, exist_ok=True)
        await asyncio.to_thread(item.target.write_text, item.name)
        return last


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> type[FakeFetcher]:
    """No connections to peers; the command works in an empty folder."""
    FakeFetcher.alone, FakeFetcher.together, FakeFetcher.waits = [], [], []
    monkeypatch.setattr("minga.standalone.StandaloneFetcher", FakeFetcher)
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return FakeFetcher


def test_with_a_daemon_the_file_lands_in_its_folder(
    minga_with_daemon: Minga, daemon: FakeDaemon, locator: FakeLocator
) -> None:
    """This machine becomes a holder: the daemon downloads, and nothing is copied."""
    daemon.contents = {"a.bin": b"x" * 2048}
    ended = minga_with_daemon("get", "a.bin")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith("a.bin: 2 KiB in ")
    assert ended.out.endswith(f" from 1 peer, to {daemon.share_dir / 'a.bin'}\n")
    again = minga_with_daemon("get", "a.bin")
    assert again.out == f"a.bin is there already, whole: {daemon.share_dir / 'a.bin'}\n"


def test_with_a_daemon_and_a_path_the_file_is_copied_there(
    minga_with_daemon: Minga, daemon: FakeDaemon, tmp_path: Path
) -> None:
    """The copy has the bytes, and no temporary file stays."""
    daemon.contents = {"data/a.bin": b"abc"}
    out = tmp_path / "out"
    out.mkdir()
    assert minga_with_daemon("get", "data/a.bin", "-o", str(out)).code == 0
    assert [path.name for path in out.iterdir()] == ["a.bin"]
    assert (out / "a.bin").read_bytes() == b"abc"
    assert (daemon.share_dir / "data/a.bin").read_bytes() == b"abc"


def test_the_same_command_again_waits_for_the_one_that_ends(minga_with_daemon: Minga, daemon: FakeDaemon) -> None:
    """Fault B13: Ctrl-C, and the same command again, was "already running"."""
    daemon.contents, daemon.ending = {"a": b"x"}, {"a"}
    daemon.errors = {"a": AlreadyRunningError("a is being stored here already")}
    assert minga_with_daemon("get", "a").code == 0
    assert len(daemon.asked) == 2


def test_a_daemon_of_another_network_is_not_asked(
    minga_with_daemon: Minga, daemon: FakeDaemon, alone: type[FakeFetcher]
) -> None:
    """Fault C17: `minga --locator B get X` got network A's file of that name, or "nobody shares it"."""
    daemon.contents, daemon.locator = {"a": b"of network A"}, "http://a:50052"
    ended = minga_with_daemon("get", "a")
    assert (ended.code, alone.alone, daemon.asked) == (0, ["a"], [])
    assert ended.err == "minga: fetching without the peer on this machine: its locator is http://a:50052\n"
    assert minga_with_daemon("get", "b", "--quiet").err == ""


def test_a_path_with_other_bytes_is_kept_unless_overwriting(
    minga_with_daemon: Minga, daemon: FakeDaemon, tmp_path: Path
) -> None:
    """Nothing is overwritten without being asked for."""
    daemon.contents = {"a": b"new"}
    target = tmp_path / "a"
    target.write_bytes(b"old")
    ended = minga_with_daemon("get", "a", "-o", str(target))
    assert (ended.code, target.read_bytes()) == (4, b"old")
    assert ended.err == f"minga: {target} exists and is another content (--overwrite replaces it)\n"
    assert minga_with_daemon("get", "a", "-o", str(target), "--overwrite").code == 0
    assert target.read_bytes() == b"new"


def test_wait_and_version_reach_the_daemon(minga_with_daemon: Minga, daemon: FakeDaemon) -> None:
    """--wait 0 is for ever; without --wait the daemon's setting holds."""
    daemon.contents = {"a": b""}
    minga_with_daemon("get", "a", "--wait", "0", "--content-id", content_id(3), "--overwrite")
    minga_with_daemon("get", "a")
    first, second = daemon.asked
    assert first.HasField("source_wait")
    assert first.source_wait.ToTimedelta() == timedelta(0)
    assert (first.content_id[-1], first.overwrite) == (3, True)
    assert not second.HasField("source_wait")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NameTakenError("a is there already with another content"), 4),
        (NoSourcesError("no source of a was reachable for 5 min 0 s", hint="what was fetched is kept"), 5),
        (NoSpaceError("cannot write a: no space left on device"), 6),
        (StorageError("cannot write a: permission denied"), 6),
    ],
)
def test_what_the_daemon_refuses_is_one_line_with_its_exit_code(
    minga_with_daemon: Minga, daemon: FakeDaemon, error: NameTakenError, code: int
) -> None:
    """The daemon's words and hint reach the terminal."""
    daemon.errors["a"] = error
    ended = minga_with_daemon("get", "a")
    assert (ended.code, ended.out) == (code, "")
    assert ended.err.startswith(f"minga: {error}")
    assert ended.err.count("\n") == 1


def test_without_a_daemon_files_land_here(minga: Minga, alone: type[FakeFetcher]) -> None:
    """The current folder and the name's last part; 40 of the 100 bytes had been there before."""
    ended = minga("get", "data/a.bin")
    assert Path("a.bin").read_text() == "data/a.bin"
    assert ended.out.startswith("data/a.bin: 100 B in ")
    assert ended.out.endswith(" from 1 peer, 40 B of it were here before, to a.bin\n")


def test_standalone_leaves_the_daemon_alone(
    minga_with_daemon: Minga, daemon: FakeDaemon, alone: type[FakeFetcher]
) -> None:
    """--standalone is obeyed with a daemon running."""
    assert minga_with_daemon("get", "a", "--standalone", "--wait", "7").code == 0
    assert daemon.asked == []
    assert alone.waits == [timedelta(seconds=7)]


def test_a_folder_keeps_its_tree(minga: Minga, locator: FakeLocator, alone: type[FakeFetcher]) -> None:
    """Every page of the folder, each file at its place, one line of summary."""
    for name in ("set/a", "set/sub/b", "set/sub/c", "settle"):
        locator.share(name)
    ended = minga("get", "set/")
    assert ended.out.startswith("3 files fetched: 300 B in ")
    assert ended.out.endswith(" from 1 peer, 40 B of it were here before\n")
    assert alone.together == [["set/a", "set/sub/b", "set/sub/c"]]
    assert alone.alone == ["set/sub/b"]
    assert sorted(str(path) for path in Path().rglob("*") if path.is_file()) == ["set/a", "set/sub/b", "set/sub/c"]
    assert minga("get", "set/", "-o", "renamed").code == 0
    assert Path("renamed/sub/b").read_text() == "set/sub/b"


def test_one_bad_file_does_not_stop_the_others(minga: Minga, locator: FakeLocator, alone: type[FakeFetcher]) -> None:
    """The others arrive; the failure is listed; the exit code is the failure's."""
    for name in ("d/a", "d/bad", "d/z"):
        locator.share(name)
    ended = minga("get", "d/")
    assert ended.code == 5
    assert ended.out.startswith("2 files fetched, 1 failed: ")
    assert ended.err == "minga: d/bad: no source of d/bad was reachable\n"
    assert Path("d/z").exists()


def test_a_folder_nobody_shares_is_3(minga: Minga, alone: type[FakeFetcher]) -> None:
    """An empty folder is no success."""
    ended = minga("get", "nothing/")
    assert ended.code == 3
    assert ended.err.startswith("minga: nobody shares a file under nothing/ (")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["../etc/passwd"], "'../etc/passwd' is not a file name"),
        (["/etc/passwd"], "it is absolute"),
        (["a", "--content-id", "b3:00"], "is not a content id"),
        (["a/", "--content-id", content_id(1)], "one version of one file"),
        (["x/a", "y/a"], "x/a and y/a would both go to a"),
        (["a", "--wait", "-1"], "--wait"),
        ([], "Missing argument"),
    ],
)
def test_wrong_arguments_are_2_and_fetch_nothing(
    minga: Minga, alone: type[FakeFetcher], arguments: list[str], words: str
) -> None:
    """Refused before anything is asked of anybody."""
    ended = minga("get", *arguments)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("minga: ")
    assert words in ended.err
    assert ended.err.count("\n") == 1
    assert alone.alone == []


@pytest.mark.parametrize("text", ["fast", "50Mb/s", "-1MB/s", "63KiB/s", "1B"])
def test_a_wrong_limit_stops_the_command_and_is_named(minga: Minga, text: str) -> None:
    """One line on standard error, before anything is done."""
    ended = minga("get", "a.bin", f"--limit-down={text}")
    assert (ended.code, ended.out) == (2, "")
    assert "--limit-down" in ended.err
    assert len(ended.err.splitlines()) == 1


def test_a_limit_of_one_command_is_refused_when_the_daemon_fetches(
    minga_with_daemon: Minga, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon has limits of its own; MINGA_LIMIT_DOWN is set for the machine and refuses nothing."""
    daemon.contents = {"a.bin": b"x"}
    ended = minga_with_daemon("get", "a.bin", "--limit-down", "1MB/s")
    assert ended.code == 2
    assert "--standalone" in ended.err
    assert not daemon.asked
    monkeypatch.setenv("MINGA_LIMIT_DOWN", "1MB/s")
    assert minga_with_daemon("get", "a.bin").code == 0


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


def test_what_cannot_go_together_is_fetched_alone_with_its_error(
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


def test_a_folder_is_copied_to_a_path(
    minga_with_daemon: Minga, daemon: FakeDaemon, folder: dict[str, bytes], tmp_path: Path
) -> None:
    """What the shared folder has is copied, and another content is not overwritten."""
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


def test_more_names_than_a_call_takes_are_split(
    minga_with_daemon: Minga, daemon: FakeDaemon, locator: FakeLocator
) -> None:
    """As many at a time as a daemon takes."""
    locator.page = 1000
    for number in range(MAX_NAMES + 1):
        locator.share(f"m/{number:04}", 1)
    daemon.contents = {f"m/{number:04}": b"x" for number in range(MAX_NAMES + 1)}
    assert minga_with_daemon("get", "m/").out.startswith(f"{MAX_NAMES + 1:,} files fetched: ")
    assert sorted(len(names) for names in daemon.asked_together) == [1, MAX_NAMES]
    assert daemon.asked == []
