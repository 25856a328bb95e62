"""`minga get`: through the daemon, and on its own."""

import asyncio
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from minga_core.errors import NameTakenError, NoSourcesError, NoSpaceError, StorageError
from minga_core.ids import ContentId, parse_peer_id
from minga_core.names import Name
from minga_engine.progress import DownloadPhase, Progress, SmallDone

from .conftest import FakeDaemon, FakeLocator, Minga, content_id


class FakeTransfers:
    """Stands for TransferClient: writes the name into the target. Remembers how it was asked."""

    asked: list[dict[str, Any]]
    together: list[list[str]]

    def __init__(self, locator: Any, settings: Any) -> None:
        """Takes what the real one takes."""

    async def __aenter__(self) -> "FakeTransfers":
        return self

    async def __aexit__(self, *_: object) -> None:
        """Nothing to close."""

    async def get_small(self, targets: Mapping[Name, Path], on_done: Callable[[list[SmallDone]], None]) -> None:
        """Half of what may go together does; the rest is asked for one by one."""
        self.together.append(list(targets))
        for name, target in list(targets.items())[::2]:
            if not name.endswith("bad"):
                await asyncio.to_thread(target.write_text, name)
                on_done([SmallDone(name, ContentId(bytes(32)), 100, target, parse_peer_id("peer-2"))])

    async def get(
        self, name: str, target: Path, *, on_progress: Callable[[Progress], None], **options: Any
    ) -> Progress:
        self.asked.append({"name": name, **options})
        if name.endswith("bad"):
            raise NoSourcesError(f"no source of {name} was reachable")
        on_progress(Progress(DownloadPhase.FETCHING, 100, 50))
        await asyncio.to_thread(target.write_text, name)
        return Progress(DownloadPhase.DONE, 100, 100, 40, {parse_peer_id("peer-1"): 60}, path=target)


@pytest.fixture
def transfers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> type[FakeTransfers]:
    """No sockets; the command works in an empty folder."""
    FakeTransfers.asked, FakeTransfers.together = [], []
    monkeypatch.setattr("minga.standalone.TransferClient", FakeTransfers)
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return FakeTransfers


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
    """--wait 0 is for ever and is told so; without --wait the daemon's setting holds."""
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


def test_without_a_daemon_files_land_here(minga: Minga, transfers: type[FakeTransfers]) -> None:
    """The current folder and the name's last part; 40 of the 100 bytes had been there before."""
    ended = minga("get", "data/a.bin")
    assert Path("a.bin").read_text() == "data/a.bin"
    assert ended.out.startswith("data/a.bin: 100 B in ")
    assert ended.out.endswith(" from 1 peer, 40 B of it were here before, to a.bin\n")


def test_standalone_leaves_the_daemon_alone(
    minga_with_daemon: Minga, daemon: FakeDaemon, transfers: type[FakeTransfers]
) -> None:
    """--standalone is obeyed with a daemon running."""
    assert minga_with_daemon("get", "a", "--standalone", "--wait", "7").code == 0
    assert daemon.asked == []
    assert transfers.asked[0]["source_wait"] == timedelta(seconds=7)


def test_a_folder_keeps_its_tree(minga: Minga, locator: FakeLocator, transfers: type[FakeTransfers]) -> None:
    """Every page of the folder, each file at its place, one line of summary."""
    for name in ("set/a", "set/sub/b", "set/sub/c", "settle"):
        locator.share(name)
    ended = minga("get", "set/")
    assert ended.out.startswith("3 files fetched: 300 B in ")
    assert ended.out.endswith(" from 2 peers, 40 B of it were here before\n")
    assert transfers.together == [["set/a", "set/sub/b", "set/sub/c"]]
    assert [asked["name"] for asked in transfers.asked] == ["set/sub/b"]
    assert sorted(str(path) for path in Path().rglob("*") if path.is_file()) == ["set/a", "set/sub/b", "set/sub/c"]
    assert minga("get", "set/", "-o", "renamed").code == 0
    assert Path("renamed/sub/b").read_text() == "set/sub/b"


def test_one_bad_file_does_not_stop_the_others(
    minga: Minga, locator: FakeLocator, transfers: type[FakeTransfers]
) -> None:
    """The others arrive; the failure is listed; the exit code is the failure's."""
    for name in ("d/a", "d/bad", "d/z"):
        locator.share(name)
    ended = minga("get", "d/")
    assert ended.code == 5
    assert ended.out.startswith("2 files fetched, 1 failed: ")
    assert ended.err == "minga: d/bad: no source of d/bad was reachable\n"
    assert Path("d/z").exists()


def test_a_folder_nobody_shares_is_3(minga: Minga, transfers: type[FakeTransfers]) -> None:
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
    minga: Minga, transfers: type[FakeTransfers], arguments: list[str], words: str
) -> None:
    """Refused before anything is asked of anybody."""
    ended = minga("get", *arguments)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("minga: ")
    assert words in ended.err
    assert ended.err.count("\n") == 1
    assert transfers.asked == []
