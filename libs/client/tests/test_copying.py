"""A copy is whole or not there."""

import asyncio
import errno
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from minga import copying
from minga.copying import FileCopy, copy_into_place, copy_small
from minga_core.errors import ContentChangedError, NameTakenError, NoSpaceError, StorageError
from minga_core.names import Name
from minga_engine.parts import placing
from minga_engine.parts.hashing import hash_path
from minga_engine.parts.placing import MAX_SMALL_BYTES

# ruff: noqa: ASYNC240 - small files, and nothing else runs on the loop


@pytest.fixture(autouse=True, params=["nameless", "named"])
def _kind_of_new_files(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test on a file system with files without a name, and on one without."""
    if request.param == "named":
        monkeypatch.setattr(os, "O_TMPFILE", os.O_DIRECTORY)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A file of a few steps."""
    path = tmp_path / "source"
    path.write_bytes(os.urandom(3_000_000))
    return path


async def test_the_copy_has_the_same_bytes(source: Path, tmp_path: Path) -> None:
    """And is made once: again there is nothing to do."""
    content_id = hash_path(source).content_id
    target = tmp_path / "target"
    assert await copy_into_place(source, target, content_id, overwrite=False)
    assert target.read_bytes() == source.read_bytes()
    assert not await copy_into_place(source, target, content_id, overwrite=False)
    assert not await copy_into_place(source, source, content_id, overwrite=True)


@pytest.mark.parametrize("overwrite", [False, True])
async def test_a_copy_is_there_after_a_power_cut(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, overwrite: bool
) -> None:
    """Fault B18: its bytes are synced before it has its name, and the folder afterwards."""
    target, content_id = tmp_path / "out/target", hash_path(source).content_id
    target.parent.mkdir()
    if overwrite:
        target.write_bytes(b"before")
    synced: list[tuple[bool, bool]] = []

    def fsync(descriptor: int) -> None:
        in_place = target.exists() and target.stat().st_size == source.stat().st_size
        synced.append((os.path.samestat(os.fstat(descriptor), target.parent.stat()), in_place))

    monkeypatch.setattr(os, "fsync", fsync)
    await copy_into_place(source, target, content_id, overwrite=overwrite)
    assert synced == [(False, False), (True, True)]


async def test_without_the_kernels_help_it_is_the_same(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Across file systems, and on old kernels, bytes go through the process."""

    def refuse(*_: int) -> int:
        raise OSError(errno.EXDEV, "cross-device")

    monkeypatch.setattr(os, "copy_file_range", refuse, raising=False)
    assert await copy_into_place(source, tmp_path / "t", hash_path(source).content_id, overwrite=False)
    assert (tmp_path / "t").read_bytes() == source.read_bytes()


async def test_another_content_stays_unless_overwriting(source: Path, tmp_path: Path) -> None:
    """Replaced in one step when asked."""
    target = tmp_path / "t"
    target.write_text("mine")
    content_id = hash_path(source).content_id
    with pytest.raises(NameTakenError):
        await copy_into_place(source, target, content_id, overwrite=False)
    assert target.read_text() == "mine"
    assert await copy_into_place(source, target, content_id, overwrite=True)
    assert target.read_bytes() == source.read_bytes()


@pytest.mark.parametrize(("number", "kind"), [(errno.ENOSPC, NoSpaceError), (errno.EIO, StorageError)])
async def test_a_disk_that_says_no_leaves_nothing_behind(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[StorageError]
) -> None:
    """No target, no temporary file."""

    def refuse(*_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(copying, "_copy_bytes", refuse)
    with pytest.raises(kind, match="cannot write"):
        await copy_into_place(source, tmp_path / "t", hash_path(source).content_id, overwrite=False)
    assert os.listdir(tmp_path) == ["source"]


async def test_a_cancelled_copy_leaves_nothing_behind(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C in the middle: the thread has cleaned up before the cancellation goes on."""
    copied = asyncio.Event()
    loop = asyncio.get_running_loop()

    def crawl(source: int, target: int, count: int, start: int, to: int) -> int:
        loop.call_soon_threadsafe(copied.set)
        return os.pwrite(target, b"x", to)

    monkeypatch.setattr(copying, "STEP_BYTES", 1000)
    monkeypatch.setattr(os, "copy_file_range", crawl, raising=False)
    work = asyncio.create_task(copy_into_place(source, tmp_path / "t", hash_path(source).content_id, overwrite=False))
    await copied.wait()
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert os.listdir(tmp_path) == ["source"]


@pytest.mark.parametrize("kind", ["fifo", "link to a device", "dangling link"])
async def test_what_is_not_a_file_is_not_replaced(source: Path, tmp_path: Path, kind: str) -> None:
    """Fault C8: `get -o DEVICE --overwrite` put a file in the place of a device, a pipe, or a dangling link."""
    target = tmp_path / "t"
    if kind == "fifo":
        os.mkfifo(target)
    else:
        target.symlink_to("/dev/null" if "device" in kind else tmp_path / "nowhere")
    before = target.lstat()
    with pytest.raises(StorageError, match="not replaced"):
        await copy_into_place(source, target, hash_path(source).content_id, overwrite=True)
    assert target.lstat() == before


@pytest.mark.parametrize("name", ["漢" * 80 + ".txt", "n" * 255])
async def test_names_of_255_bytes_can_be_copied_to(source: Path, tmp_path: Path, name: str) -> None:
    """Fault C10: the temporary name was cut by characters, and longer than file systems allow."""
    assert await copy_into_place(source, tmp_path / name, hash_path(source).content_id, overwrite=False)


async def test_a_file_that_appears_while_copying_is_not_overwritten(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault B18: the copy was renamed over whatever had come after the check."""
    copy_bytes = copying._copy_bytes

    def slow(*arguments: Any) -> None:
        copy_bytes(*arguments)
        (tmp_path / "t").write_text("theirs")

    monkeypatch.setattr(copying, "_copy_bytes", slow)
    with pytest.raises(NameTakenError):
        await copy_into_place(source, tmp_path / "t", hash_path(source).content_id, overwrite=False)
    assert sorted(os.listdir(tmp_path)) == ["source", "t"]
    assert (tmp_path / "t").read_text() == "theirs"


async def test_a_copy_of_damaged_bytes_is_not_delivered(source: Path, tmp_path: Path) -> None:
    """Faults B18 and C6: what the daemon names was copied unread; what is there already stays."""
    content_id = hash_path(source).content_id
    with source.open("r+b") as file:
        file.write(b"rotten")
    (tmp_path / "t").write_text("good")
    with pytest.raises(ContentChangedError, match="is not the content"):
        await copy_into_place(source, tmp_path / "t", content_id, overwrite=True)
    assert sorted(os.listdir(tmp_path)) == ["source", "t"]
    assert (tmp_path / "t").read_text() == "good"


async def test_a_copy_has_the_mode_that_the_umask_leaves(source: Path, tmp_path: Path) -> None:
    """Fault of the field: copies had the mode of the daemon's file."""
    source.chmod(0o600)
    before = os.umask(0o027)
    try:
        await copy_into_place(source, tmp_path / "t", hash_path(source).content_id, overwrite=False)
    finally:
        os.umask(before)
    assert (tmp_path / "t").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("executable", [True, False])
async def test_a_copy_has_the_sources_time_and_executable_bit(source: Path, tmp_path: Path, executable: bool) -> None:
    """What is kept of a file; the rest is that of a new one."""
    source.chmod(0o4711 if executable else 0o604)
    os.utime(source, ns=(5, 1_234_567_890_123_456_789))
    before = os.umask(0o022)
    try:
        await copy_into_place(source, tmp_path / "t", hash_path(source).content_id, overwrite=False)
    finally:
        os.umask(before)
    status = (tmp_path / "t").stat()
    assert status.st_mtime_ns == 1_234_567_890_123_456_789
    assert status.st_mode & 0o7777 == (0o755 if executable else 0o644)


@pytest.mark.parametrize("by_kernel", [True, False])
async def test_a_copy_keeps_holes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_kernel: bool) -> None:
    """Within a file system and across two."""

    def refuse(*_: int) -> int:
        raise OSError(errno.EXDEV, "cross-device")

    if not by_kernel:
        monkeypatch.setattr(os, "copy_file_range", refuse)
    source = tmp_path / "sparse"
    with source.open("wb") as file:
        file.seek(40_000_000)
        file.write(os.urandom(1000))
        file.truncate(90_000_000)
    await copy_into_place(source, tmp_path / "t", hash_path(source).content_id, overwrite=False)
    assert hash_path(tmp_path / "t") == hash_path(source)
    assert (tmp_path / "t").stat().st_blocks * 512 < 1_000_000


_KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from minga import copying
from minga_core.ids import ContentId

def kill(*_):
    os.kill(os.getpid(), signal.SIGKILL)

copying.set_modified = kill
source, target, content_id = Path(sys.argv[1]), Path(sys.argv[2]), ContentId.parse(sys.argv[3])
asyncio.run(copying.copy_into_place(source, target, content_id, overwrite=False))
"""


async def test_a_copy_that_is_killed_leaves_nothing(source: Path, tmp_path: Path) -> None:
    """Fault of the field: `kill -9` left a temporary copy of the whole file."""
    (tmp_path / "out").mkdir()
    arguments = (source, tmp_path / "out/t", str(hash_path(source).content_id))
    ended = await asyncio.create_subprocess_exec(sys.executable, "-c", _KILLED, *arguments)
    assert await ended.wait() == -signal.SIGKILL
    assert os.listdir(tmp_path / "out") == []


# Many small ones.


def has_nameless() -> bool:
    """Whether this test has a file system with files without a name; elsewhere none is copied together."""
    return os.O_TMPFILE != os.O_DIRECTORY


def small_copies(folder: Path, count: int) -> list[FileCopy]:
    """Copies to make of as many files, whose bytes are their names."""
    (folder / "to").mkdir()
    copies = []
    for number in range(count):
        source = folder / f"source-{number}"
        source.write_text(source.name)
        os.utime(source, ns=(number, number))
        content_id = hash_path(source).content_id
        copies.append(FileCopy(Name(source.name), content_id, str(source), folder / "to" / str(number)))
    return copies


def test_small_files_are_copied_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With their bytes and attributes; all are synced before the first has its name, and all names afterwards."""
    copies = small_copies(tmp_path, 30)
    os.chmod(copies[3].source, 0o755)
    named: list[int] = []
    monkeypatch.setattr(placing, "sync_file_systems", lambda _: named.append(len(os.listdir(tmp_path / "to"))))
    copied = copy_small(copies)
    if not has_nameless():
        assert not any(copied)
        return
    assert all(copied)
    assert named == [0, 30]
    for copy in copies:
        assert copy.target.read_bytes() == Path(copy.source).read_bytes()
        assert copy.target.stat().st_mtime_ns == os.stat(copy.source).st_mtime_ns
    assert os.access(copies[3].target, os.X_OK)


def test_small_copies_that_are_not_plain_are_left(tmp_path: Path) -> None:
    """A source that is gone or has other bytes, one that is not small, and a target that is there; the rest goes on."""
    copies = small_copies(tmp_path, 5)
    os.unlink(copies[0].source)
    Path(copies[1].source).write_text("other")
    copies[2].target.write_text("mine")
    large = tmp_path / "large"
    large.write_bytes(bytes(MAX_SMALL_BYTES + 1))
    copies[3] = FileCopy(Name("large"), hash_path(large).content_id, str(large), copies[3].target)
    nameless = has_nameless()
    assert copy_small(copies) == [False, False, False, False, nameless]
    there = {path.name: path.read_text() for path in (tmp_path / "to").iterdir()}
    assert there == {"2": "mine"} | ({"4": "source-4"} if nameless else {})
