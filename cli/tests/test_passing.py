"""Contents through standard streams, and copies between names and paths."""

import io
import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from minga import ContentId, PutProgress, PutResult, parse_peer_id
from minga.connecting import Connections
from minga.errors import FileNotFoundInDirectoryError, NoSourcesError
from minga_engine.parts.places import OpenFile, Place

from .conftest import FakeLocator, Minga
from .test_get import FakeFetcher, alone

__all__ = ["alone"]


class NameSource:
    """A content of the bytes of its name, which come one at a time; without sources when it ends in `bad`."""

    content_id = ContentId(bytes(32))
    opened: list[tuple[str, timedelta | None]]

    def __init__(self, name: str) -> None:
        self._name = name
        self.size_bytes = len(name.encode())
        self._file = OpenFile(os.memfd_create("content"))
        os.write(self._file.descriptor, name.encode())

    async def place(self, offset: int, length: int) -> Place:
        if self._name.endswith("bad"):
            raise NoSourcesError("no source was reachable")
        return Place(self._file, offset, offset + 1)

    async def aclose(self) -> None:
        """Nothing to close."""


@pytest.fixture
def sources(monkeypatch: pytest.MonkeyPatch) -> type[NameSource]:
    """What `open` reads, and with what it was opened."""
    NameSource.opened = []

    async def source(connections: Connections, wanted: Any, wait: timedelta | None) -> NameSource:
        NameSource.opened.append((str(wanted), wait))
        if wanted.name == "gone":
            raise FileNotFoundInDirectoryError("nobody shares gone")
        return NameSource(wanted.name)

    monkeypatch.setattr(Connections, "source", source)
    return NameSource


class Uploads:
    """Stands for the engine of a client: remembers each upload's name, bytes and replicas."""

    done: list[tuple[str, bytes, int]]

    def __init__(self, *_: Any) -> None:
        """Takes what the real one takes."""

    async def aclose(self) -> None:
        """Nothing to close."""

    async def put(
        self, path: Path, name: Any, replicas: int, on_progress: Callable[[PutProgress], None], *, overwrite: bool
    ) -> PutResult:
        self.done.append((name, path.read_bytes(), replicas))  # noqa: ASYNC240 - a few bytes
        return PutResult(name, ContentId(bytes(32)), 10, (parse_peer_id("peer-1"),), False)

    async def locate(self, wanted: Any) -> str:
        if wanted.name == "gone":
            raise FileNotFoundInDirectoryError("nobody shares gone")
        return str(wanted)

    async def copy(
        self, source: str, name: Any, replicas: int, on_progress: Callable[[PutProgress], None], *, overwrite: bool
    ) -> PutResult:
        self.done.append((name, source.encode(), replicas))
        return PutResult(name, ContentId(bytes(32)), 10, (parse_peer_id("peer-1"),), False)


@pytest.fixture
def uploads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> type[Uploads]:
    """No connections to peers; temporary folders in a folder of the test."""
    Uploads.done = []
    monkeypatch.setattr("minga.standalone.Engine", Uploads)
    return Uploads


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where temporary folders are made."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


def _input(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(content)))


@pytest.mark.parametrize("arguments", [("cat", "a", "b/c"), ("get", "a", "b/c", "-o", "-"), ("cp", "minga:a", "-")])
def test_files_go_to_standard_output(minga: Minga, sources: type[NameSource], arguments: tuple[str, ...]) -> None:
    """Bytes and nothing else, in the order of the names; with a wait, and of a version, as for `get`."""
    ended = minga(*arguments)
    assert (ended.code, ended.out, ended.err) == (0, "ab/c" if "b/c" in arguments else "a", "")
    if arguments[0] == "cp":
        return
    version = "b3:" + "0" * 64
    assert minga(*(each for each in arguments if each != "b/c"), "--wait", "9", "--content-id", version).out == "a"
    assert sources.opened[-1] == (f"a@{version}", timedelta(seconds=9))


def test_a_folder_does_not_go_to_standard_output(minga: Minga, sources: type[NameSource]) -> None:
    """Before anything is written."""
    for arguments in (("cat", "a", "b/"), ("get", "a", "b/", "-o", "-")):
        ended = minga(*arguments)
        assert (ended.code, ended.out) == (2, "")
        assert "b/ is a folder" in ended.err


def test_one_version_of_several_files_is_refused(minga: Minga, sources: type[NameSource]) -> None:
    """As for `get`."""
    for arguments in (("cat", "a", "b"), ("get", "a", "b", "-o", "-")):
        assert minga(*arguments, "--content-id", "b3:" + "0" * 64).code == 2
    assert minga("get", "a", "-o", "-", "--explain").code == 2
    assert not sources.opened


def test_a_file_without_sources_is_5(minga: Minga, sources: type[NameSource]) -> None:
    """What was written before it stays written; the exit code is that of the failure."""
    ended = minga("cat", "a", "bad", "--wait", "0.01")
    assert (ended.code, ended.out) == (5, "a")
    ended = minga("cat", "a", "gone")
    assert (ended.code, ended.out) == (3, "a")
    assert "`minga find gone`" in ended.err


@pytest.mark.parametrize(
    ("options", "through_daemon"), [((), True), (("--standalone",), False), (("--limit-down", "1MB/s"), False)]
)
def test_cat_goes_through_the_daemon_unless_it_must_not(
    minga_with_daemon: Minga, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], through_daemon: bool
) -> None:
    """A limit is for what the command fetches itself, so it is fetched by the command then."""
    used: list[bool] = []

    async def source(connections: Connections, wanted: Any, wait: timedelta | None) -> NameSource:
        used.append(await connections.uses_daemon())
        return NameSource(wanted.name)

    monkeypatch.setattr(Connections, "source", source)
    for arguments in (("cat", "a"), ("get", "a", "-o", "-")):
        assert minga_with_daemon(*arguments, *options).out == "a"
    assert used == [through_daemon, through_daemon]


def test_a_silent_source_is_noted_once(
    minga: Minga, sources: type[NameSource], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On standard error, unless --quiet."""
    monkeypatch.setattr("minga_cli.passing.SILENCE_SECONDS", 0.01)
    assert minga("cat", "bad", "--wait", "0.1").err.count("waiting for a source") == 1
    assert "waiting" not in minga("cat", "bad", "--wait", "0.1", "--quiet").err


def test_standard_input_is_uploaded_under_a_given_name(
    minga: Minga, uploads: type[Uploads], temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of any bytes; nothing of it stays on the disk."""
    _input(monkeypatch, b"\x00\xff\n")
    assert minga("put", "-", "--as", "a/b", "--replicas", "2").code == 0
    assert uploads.done == [("a/b", b"\x00\xff\n", 2)]
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("arguments", [(), ("--as", "a/"), ("--as", "/bad"), ("x", "--as", "a/")])
def test_standard_input_needs_a_name(
    minga: Minga, uploads: type[Uploads], monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    """And nothing beside it. It is not read before."""
    monkeypatch.setattr("sys.stdin", None)
    assert minga("put", "-", *arguments).code == 2
    assert not uploads.done


def test_cp_puts_and_gets(
    minga: Minga, alone: type[FakeFetcher], uploads: type[Uploads], tmp_path: Path, locator: FakeLocator
) -> None:
    """As `put` and `get` do; from name to name those that hold it copy it."""
    file = tmp_path / "file"
    file.write_bytes(b"x")
    for arguments, name in (
        ((str(file), "minga:n"), "n"),
        ((str(file), "minga:d/"), "d/file"),
        ((str(file), "minga:"), "file"),
    ):
        assert minga("cp", *arguments).code == 0
        assert uploads.done.pop()[:2] == (name, b"x")
    assert minga("cp", "minga:a/b", str(tmp_path / "got")).code == 0
    assert (tmp_path / "got").read_text() == "a/b"
    for target, name in (("minga:c", "c"), ("minga:d/", "d/b"), ("minga:", "b")):
        ended = minga("cp", "minga:a/b", target, "--replicas", "2")
        assert (ended.code, ended.out.startswith(f"{name}: 10 B in ")) == (0, True)
        assert uploads.done.pop() == (name, b"a/b", 2)
    ended = minga("cp", "minga:gone", "minga:c")
    assert (ended.code, "`minga find gone`" in ended.err) == (3, True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("a", "b"), "neither source nor target"),
        (("minga:a", "b", "minga:c/"), "names as well as paths"),
        (("minga:a", "minga:b", "minga:c/"), "one file at a time"),
        (("minga:a/", "minga:c/"), "one file at a time"),
        (("minga:a", "minga:a"), "to itself"),
        (("minga:a", "minga:"), "to itself"),
        (("minga:../a", "b"), ".."),
    ],
)
def test_cp_refuses_what_it_cannot_mean(
    minga: Minga, alone: type[FakeFetcher], uploads: type[Uploads], arguments: tuple[str, ...], words: str
) -> None:
    """Before anything is moved."""
    ended = minga("cp", *arguments)
    assert ended.code == 2
    assert words in ended.err
    assert not alone.alone
    assert not uploads.done


def test_quiet_leaves_errors(minga: Minga, alone: type[FakeFetcher], uploads: type[Uploads], tmp_path: Path) -> None:
    """No result and no progress; the next command in a process speaks again."""
    (tmp_path / "f").write_bytes(b"x")
    for arguments in (("get", "a"), ("get", "a", "b"), ("put", str(tmp_path / "f")), ("cp", "minga:a", "-o")):
        ended = minga(*arguments, "--quiet") if arguments[-1] != "-o" else minga("cp", "-q", "minga:a", "there")
        assert (ended.code, ended.out, ended.err) == (0, "", "")
    failed = minga("get", "-q", "a", "bad")
    assert (failed.code, failed.out) == (5, "")
    assert "bad: no source" in failed.err
    assert minga("get", "c").out
