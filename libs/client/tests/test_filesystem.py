"""`minga://` for fsspec: the catalogue as folders, ranges of contents, errors of Python's files, other processes."""

import asyncio
import errno
import multiprocessing
import os
import pickle
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fsspec  # type: ignore[import-untyped]
import pytest
from fsspec.asyn import sync  # type: ignore[import-untyped]

from minga import AsyncClient, parse_name
from minga.filesystem import MingaFileSystem
from minga.filesystem.os_errors import os_error
from minga_core.errors import (
    InvalidArgumentError,
    InvalidNameError,
    LocatorUnavailableError,
    MingaError,
    NameTakenError,
    NoSourcesError,
    NoSpaceError,
    PermissionDeniedError,
    StorageError,
    UnauthenticatedError,
)
from minga_core.ids import ContentId
from minga_engine.progress import PutResult
from tests.support.fake_daemon import FakeDaemon
from tests.support.fake_locator import FakeLocator, content_id
from tests.support.fake_reads import DATA, FakeReads

PINNED = f"a@{content_id(1)}"


@pytest.fixture
def fs(locator: FakeLocator, daemon: FakeDaemon, reads: FakeReads) -> Iterator[Any]:
    """The file system on a machine whose daemon has `a`."""
    daemon.locator = locator.url
    locator.share("a", len(DATA), holders=("lab-7",))
    made = MingaFileSystem(locator.url, str(daemon.socket), skip_instance_cache=True)
    yield made
    sync(made.loop, made.aclose)


@pytest.fixture
def tree(fs: Any, locator: FakeLocator) -> Any:
    """With folders; one is named as the beginning of another, and one as a file."""
    for number, name in enumerate(("d/1.csv", "d/e/2.csv", "d/e/f/3", "d2/4", "g", "g/5"), 2):
        locator.share(name, number, number=number)
    return fs


def test_fsspec_finds_it_by_its_url(locator: FakeLocator) -> None:
    """By the entry point of the package; URLs in any usual form are paths."""
    made, path = fsspec.url_to_fs("minga://d/1.csv", locator=locator.url)
    assert (type(made), path) == (MingaFileSystem, "d/1.csv")
    assert made._strip_protocol(["minga:///d/", "/d", f"minga://{PINNED}"]) == ["d", "d", PINNED]
    assert made.unstrip_protocol("d") == "minga://d"
    assert pickle.loads(pickle.dumps(made)) is made


def test_names_are_a_tree_of_folders(tree: Any) -> None:
    """What is directly in a folder, with sizes; a name that is file and folder is both."""
    assert tree.ls("", detail=False) == ["a", "d", "d2", "g", "g"]
    assert [(info["name"], info["type"], info["size"]) for info in tree.ls("minga://d/")] == [
        ("d/1.csv", "file", 2),
        ("d/e", "directory", 0),
    ]
    assert tree.ls("d/1.csv", detail=False) == ["d/1.csv"]
    assert [(path, dirs, files) for path, dirs, files in tree.walk("d")] == [
        ("d", ["e"], ["1.csv"]),
        ("d/e", ["f"], ["2.csv"]),
        ("d/e/f", [], ["3"]),
    ]
    assert tree.info("g")["type"] == "file"
    assert tree.ls("g", detail=False) == ["g/5"]
    assert tree.isdir("d")
    assert tree.isdir("")
    assert not tree.isdir("d/1.csv")
    assert tree.isfile("d/1.csv")


def test_what_is_below_a_folder_is_found_to_a_depth(tree: Any) -> None:
    """As fsspec's other file systems do: the folder itself is among its folders; nothing of another that begins so."""
    assert tree.find("d") == ["d/1.csv", "d/e/2.csv", "d/e/f/3"]
    assert tree.find("d", maxdepth=2) == ["d/1.csv", "d/e/2.csv"]
    assert tree.find("d", maxdepth=2, withdirs=True) == ["d", "d/1.csv", "d/e", "d/e/2.csv", "d/e/f"]
    assert tree.find("d", maxdepth=1, withdirs=True) == ["d", "d/1.csv", "d/e"]
    assert tree.find("d/1.csv") == ["d/1.csv"]
    assert tree.find("none") == []
    assert tree.glob("d/*.csv") == ["d/1.csv"]
    assert tree.glob("**/*.csv") == ["d/1.csv", "d/e/2.csv"]
    assert tree.glob("d*/[0-9]*") == ["d/1.csv", "d2/4"]
    assert tree.du("d") == 2 + 3 + 4


def test_a_file_says_what_it_is(tree: Any) -> None:
    """Its key is its content; a version and a content are files as well."""
    assert tree.ukey("d/1.csv") == content_id(2)
    assert tree.checksum("d/1.csv") == 2
    assert tree.modified("d/1.csv") == tree.created("d/1.csv") == datetime(2026, 3, 1, 12, tzinfo=UTC)
    for path in (f"d/1.csv@{content_id(2)}", content_id(2)):
        assert (tree.info(path)["name"], tree.info(path)["size"]) == (path, 2)


@pytest.mark.parametrize("path", ["none", "d/none", "d//1.csv", "../a", "x" * 1025, "a@b3:1", "b3:1", "a\nb"])
def test_what_is_not_there_is_not_found(tree: Any, path: str) -> None:
    """Whatever it is written like; programs look for what may not be there."""
    assert not tree.exists(path)
    assert tree.glob(f"{path}/*") == []
    for call in (tree.info, tree.ls, tree.cat_file, tree.open, tree.ukey):
        with pytest.raises(FileNotFoundError):
            call(path)


def test_ranges_are_those_of_a_slice(fs: Any, reads: FakeReads) -> None:
    """From the end as well, and past it; many of one file at once."""
    for start, end in (
        (None, None),
        (5, 10),
        (-10, None),
        (-10, -5),
        (None, -5),
        (len(DATA) - 3, len(DATA) + 9),
        (9, 5),
    ):
        assert fs.cat_file("a", start, end) == DATA[start:end]
    starts, ends = [0, 1_000_000, -4], [4, 1_000_004, None]
    assert fs.cat_ranges(["a"] * 3, starts, ends) == [DATA[:4], DATA[1_000_000:1_000_004], DATA[-4:]]
    assert fs.cat_ranges(["a", PINNED], 0, 2) == [DATA[:2]] * 2
    one, other = fs.cat_ranges(["a", "none"], [0, 0], [1, 1])
    assert one == DATA[:1]
    assert isinstance(other, FileNotFoundError)
    with pytest.raises(FileNotFoundError):
        fs.cat_ranges(["a", "none"], 0, 1, on_error="raise")
    assert fs.cat(["a"]) == {"a": DATA}


def test_a_folder_is_not_read(tree: Any, locator: FakeLocator) -> None:
    """Nor removed without its files."""
    with pytest.raises(IsADirectoryError):
        tree.cat_file("d")
    with pytest.raises(IsADirectoryError):
        tree.open("d")
    with pytest.raises(IsADirectoryError):
        tree.rm("d")


def test_an_open_file_is_one_content(fs: Any, locator: FakeLocator) -> None:
    """Its position, its size, and what it stands for in another process."""
    with fs.open("a") as file:
        assert (file.size, file.read(4), file.seek(-4, 2)) == (len(DATA), DATA[:4], len(DATA) - 4)
        copy = pickle.loads(pickle.dumps(file))
        assert copy.path == PINNED
        assert copy.read() == DATA[-4:]
        copy.close()
    with pytest.raises(ValueError, match="closed"):
        file.read()
    with fs.open("a", "r", encoding="latin-1") as text:
        assert text.read(3) == DATA[:3].decode("latin-1").replace("\r\n", "\n").replace("\r", "\n")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_reads_on_and_so_does_its_parent(fs: Any) -> None:
    """With the same file system and the same open file, as data loaders do."""
    forking = multiprocessing.get_context("fork")
    file = fs.open("a", block_size=16)
    assert file.read(4) == DATA[:4]
    results = forking.SimpleQueue()
    child = forking.Process(target=_read_in_child, args=(fs, file, results))
    child.start()
    child.join(20)
    assert child.exitcode == 0
    assert results.get() == (DATA[:9], DATA[1000:1009], ["a"])
    assert file.read(4) == DATA[4:8]
    file.close()
    assert fs.cat_file("a", 0, 9) == DATA[:9]


def _read_in_child(fs: Any, file: Any, results: Any) -> None:
    file.seek(1000)
    results.put((fs.cat_file("a", 0, 9), file.read(9), fs.ls("", detail=False)))


def test_one_file_system_serves_one_event_loop_after_another(locator: FakeLocator, daemon: FakeDaemon) -> None:
    """As programs with asyncio use it, whose loops end."""
    locator.share("d/1")
    made = MingaFileSystem(locator.url, standalone=True, asynchronous=True, skip_instance_cache=True)

    async def look() -> list[str]:
        found: list[str] = await made._find("d")
        await made.aclose()
        return found

    assert asyncio.run(look()) == asyncio.run(look()) == ["d/1"]


async def test_files_are_opened_in_an_event_loop(locator: FakeLocator, daemon: FakeDaemon, reads: FakeReads) -> None:
    """Read, and refused as elsewhere."""
    daemon.locator = locator.url
    made = MingaFileSystem(locator.url, str(daemon.socket), asynchronous=True, skip_instance_cache=True)
    async with await made.open_async("a") as file:
        assert (file.size, await file.read(4), await file.read(-1)) == (len(DATA), DATA[:4], DATA[4:])
    with pytest.raises(FileNotFoundError):
        await made.open_async("none")
    with pytest.raises(ValueError, match="mode"):
        await made.open_async("a", "ab")
    await made.aclose()


Published = list[tuple[bytes, str, bool]]


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> Published:
    """What is uploaded: bytes, name, and whether it may replace another content."""
    found: Published = []

    async def put(self: AsyncClient, path: Path | str, name: str, *, overwrite: bool, **options: object) -> PutResult:
        found.append((await asyncio.to_thread(Path(path).read_bytes), name, overwrite))
        return PutResult(parse_name(name), ContentId.parse(content_id(1)), 3, (), already_there=False)

    monkeypatch.setattr(AsyncClient, "put", put)
    return found


def test_what_is_written_is_published_whole(fs: Any, published: Published, tmp_path: Path) -> None:
    """Through a file, at once, from a path."""
    with fs.open("new/1", "wb", block_size=2) as file:
        file.write(b"abc")
        file.write(b"def")
        assert published == []
    fs.pipe_file("new/2", b"x")
    (tmp_path / "file").write_bytes(b"y")
    fs.put_file(tmp_path / "file", "new/3")
    fs.touch("new/5")
    names = [("new/1", b"abcdef"), ("new/2", b"x"), ("new/3", b"y"), ("new/5", b"")]
    assert published == [(data, name, True) for name, data in names]
    with fs.transaction:
        with fs.open("new/6", "wb") as file:
            file.write(b"z")
        assert len(published) == 4
    assert published[4:] == [(b"z", "new/6", True)]


def test_what_is_not_finished_is_not_published(fs: Any, published: Published) -> None:
    """After an error, and when it is left."""

    def fail() -> None:
        with fs.open("new", "wb") as file:
            file.write(b"half")
            raise KeyError("stop")

    with pytest.raises(KeyError):
        fail()
    left = fs.open("new", "wb")
    left.write(b"left")
    del left
    assert published == []


def test_only_names_are_written_and_new_ones_when_asked(fs: Any, published: Published) -> None:
    """A version never changes; a name that is there stays as it is; nothing is appended to."""
    for path in (PINNED, content_id(1)):
        with pytest.raises(OSError, match="a version never changes") as caught:
            fs.pipe_file(path, b"")
        assert caught.value.errno == errno.EROFS
    with pytest.raises(FileExistsError):
        fs.open("a", "xb")
    with pytest.raises(FileExistsError):
        fs.pipe_file("a", b"", mode="create")
    with pytest.raises(ValueError, match="mode"):
        fs.open("a", "ab")
    fs.pipe_file("new", b"x", mode="create")
    assert published == [(b"x", "new", False)]


def test_a_name_is_removed_where_nobody_else_holds_it(
    fs: Any, locator: FakeLocator, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would still be there otherwise. Once it is removed it is not found."""
    remove = AsyncClient.rm

    async def forget(self: AsyncClient, name: str) -> None:
        await remove(self, name)
        asyncio.get_running_loop().call_later(0.05, locator.files.pop, name)

    monkeypatch.setattr(AsyncClient, "rm", forget)
    locator.share("b", holders=("lab-7", "peer-1"))
    locator.share("c", holders=("peer-1",))
    for name in ("b", "c"):
        with pytest.raises(PermissionError, match="another peer holds it"):
            fs.rm(name)
    with pytest.raises(FileNotFoundError):
        fs.rm("none")
    with pytest.raises(FileNotFoundError):
        fs.rm("none", recursive=True)
    (daemon.share_dir / "a").touch()
    del locator.files["b"], locator.files["c"]
    fs.rm("", recursive=True)
    assert not (daemon.share_dir / "a").exists()
    assert not fs.exists("a")


def test_without_a_daemon_nothing_is_removed(locator: FakeLocator, short_dir: Path) -> None:
    """The copies are all on other machines."""
    locator.share("a")
    made = MingaFileSystem(locator.url, str(short_dir / "none.sock"), skip_instance_cache=True)
    with pytest.raises(PermissionError):
        made.rm("a")
    sync(made.loop, made.aclose)


def test_errors_are_those_of_a_file(fs: Any, tmp_path: Path) -> None:
    """A class that programs know, and a sentence for people."""
    kinds: list[tuple[MingaError, type[OSError], int]] = [
        (NameTakenError("it is there"), FileExistsError, errno.EEXIST),
        (PermissionDeniedError("no"), PermissionError, errno.EACCES),
        (UnauthenticatedError("who?"), PermissionError, errno.EACCES),
        (NoSpaceError("full"), OSError, errno.ENOSPC),
        (NoSourcesError("away"), TimeoutError, errno.ETIMEDOUT),
        (LocatorUnavailableError("away"), ConnectionRefusedError, errno.ECONNREFUSED),
        (InvalidNameError("no name"), FileNotFoundError, errno.ENOENT),
        (InvalidArgumentError("odd"), OSError, errno.EINVAL),
        (StorageError("broken"), OSError, errno.EIO),
    ]
    for error, kind, number in kinds:
        found = os_error(error, "p")
        assert (type(found), found.errno, found.filename) == (kind, number, "p")
        assert str(error) in str(found)
    with pytest.raises(FileNotFoundError):
        fs.put_file(tmp_path / "none", "new")
