"""What a part keeps of a file besides its bytes, and that it leaves holes where there are only zeros."""

import os
import stat
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from minga_core.attributes import FileAttributes
from minga_core.errors import NameTakenError, StorageError
from minga_core.names import Name
from minga_engine.parts.disk import DiskPool
from minga_engine.parts.files import Fingerprint, open_folder
from minga_engine.parts.holes import data_ranges, is_zero
from minga_engine.parts.part import Part
from minga_engine.parts.part_files import PART_LIFE_SECONDS, PartTarget, decode_meta, encode_meta
from minga_engine.parts.placing import SmallContent, SmallFile, place_all
from minga_engine.parts.standalone_part import open_part

from .support import fill, manifest_of, noise

MIB = 1024 * 1024
DATA = noise(2 * MIB + 7)
EXECUTABLE = FileAttributes(1_234_567_890_123_456_789, executable=True)
PLAIN = FileAttributes(1_234_567_890_123_456_789)
MODES = [(0o022, 0o755), (0o077, 0o700), (0o027, 0o750), (0o177, 0o600)]


@pytest.fixture
async def pool() -> AsyncIterator[DiskPool]:
    made = DiskPool(2)
    yield made
    made.close()


@pytest.fixture
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    """The process with another umask."""
    before = os.umask(request.param)
    yield
    os.umask(before)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def target(data: bytes = DATA, attributes: FileAttributes = EXECUTABLE) -> PartTarget:
    manifest = manifest_of(data)
    return PartTarget(Name("file.bin"), manifest, manifest.content_id, 5, attributes)


async def begun(tmp_path: Path, pool: DiskPool, wanted: PartTarget | None = None, *, overwrite: bool = False) -> Part:
    return await open_part(tmp_path / "file.bin", wanted or target(), pool, overwrite=overwrite)


@pytest.mark.parametrize(("umask", "mode"), MODES, indirect=["umask"])
async def test_a_part_becomes_a_file_with_its_attributes(
    tmp_path: Path, pool: DiskPool, umask: None, mode: int
) -> None:
    """The umask of the process decides who may read it; the row has what the file has."""
    part = await begun(tmp_path, pool)
    await fill(part, DATA)
    row = await part.commit()
    status = (tmp_path / "file.bin").stat()
    assert status.st_mtime_ns == row.modified_ns == EXECUTABLE.modified_ns
    assert mode_of(tmp_path / "file.bin") == mode
    assert row.executable is bool(mode & stat.S_IXUSR)


@pytest.mark.parametrize("executable", [True, False])
async def test_a_resumed_part_has_the_attributes_of_the_last_attempt(
    tmp_path: Path, pool: DiskPool, executable: bool
) -> None:
    """A file may have become executable, or ceased to be so, since it was begun."""
    first = await begun(tmp_path, pool, target(attributes=FileAttributes(1, not executable)))
    await fill(first, DATA, [0])
    await first.close()
    first.shut()
    second = await begun(tmp_path, pool, target(attributes=FileAttributes(2, executable)))
    assert second.held_count == 1
    await fill(second, DATA)
    await second.commit()
    assert Fingerprint.of((tmp_path / "file.bin").stat()).attributes == FileAttributes(2, executable)


async def test_a_file_system_without_such_attributes_keeps_the_file(
    tmp_path: Path, pool: DiskPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CIFS and FAT refuse modes and times; the bytes are what counts."""

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "operation not permitted")

    first = await begun(tmp_path, pool, target(attributes=PLAIN))
    await fill(first, DATA, [0])
    await first.close()
    first.shut()
    monkeypatch.setattr(os, "fchmod", refuse)
    monkeypatch.setattr(os, "utime", lambda at, **times: refuse() if times else None)
    second = await begun(tmp_path, pool)
    await fill(second, DATA)
    assert (await second.commit()).executable is False
    assert (tmp_path / "file.bin").read_bytes() == DATA


async def test_a_finished_part_that_gets_no_name_does_not_expire_for_its_modification_time(
    tmp_path: Path, pool: DiskPool
) -> None:
    """1. A part is whole; its file has a time of long ago. 2. Its name is taken. 3. It does not count as old."""
    part = await begun(tmp_path, pool)
    await fill(part, DATA)
    (tmp_path / "file.bin").write_text("mine")
    with pytest.raises(NameTakenError):
        await part.commit()
    await part.close()
    assert part.files.data_path.stat().st_mtime_ns == EXECUTABLE.modified_ns
    assert part.files.last_used() > (tmp_path / "file.bin").stat().st_mtime - PART_LIFE_SECONDS
    part.shut()


def test_a_parts_description_has_the_attributes() -> None:
    """A restarted daemon announces them; one of a version without them is resumed too."""
    assert decode_meta(encode_meta(target())).attributes == EXECUTABLE
    assert decode_meta(encode_meta(target(attributes=FileAttributes()))).attributes == FileAttributes()


@pytest.mark.parametrize(("umask", "mode"), MODES, indirect=["umask"])
def test_small_files_have_their_attributes(tmp_path: Path, umask: None, mode: int) -> None:
    """Those that come many at once, too; the fingerprint is that of the finished file."""
    content = SmallContent.of(b"small", manifest_of(b"small").content_id)
    x, p = (SmallFile(Name(name), content, 5, attributes) for name, attributes in (("x", EXECUTABLE), ("p", PLAIN)))
    placed = place_all([(tmp_path, "x", x), (tmp_path, "p", p)], open_folder)
    assert placed == [Fingerprint.of((tmp_path / base).stat()) for base in "xp"]
    assert [mode_of(tmp_path / base) for base in "xp"] == [mode, mode & ~0o111]
    assert {(tmp_path / base).stat().st_mtime_ns for base in "xp"} == {EXECUTABLE.modified_ns}


# Holes.


def allocated(path: Path) -> int:
    return path.stat().st_blocks * 512


async def test_a_sparse_file_stays_sparse(tmp_path: Path, pool: DiskPool) -> None:
    """Chunks of zeros take no room, the last, shorter one neither."""
    data = bytes(3 * MIB) + noise(MIB) + bytes(3 * MIB + 7)
    part = await begun(tmp_path, pool, target(data))
    await fill(part, data)
    await part.commit()
    assert (tmp_path / "file.bin").read_bytes() == data
    assert MIB <= allocated(tmp_path / "file.bin") < 2 * MIB


async def test_zeros_are_written_where_there_is_something_else(tmp_path: Path, pool: DiskPool) -> None:
    """1. A chunk of zeros is held, a hole. 2. The part is damaged there. 3. It is found, fetched again, and right."""
    data = bytes(2 * MIB + 7)
    first = await begun(tmp_path, pool, target(data))
    await fill(first, data)
    await first.close()
    first.shut()
    with first.files.data_path.open("r+b") as file:
        file.seek(MIB + 5)
        file.write(b"x")
    second = await begun(tmp_path, pool, target(data))
    assert len(second.held.missing()) == 1
    await fill(second, data)
    await second.commit()
    assert (tmp_path / "file.bin").read_bytes() == data


async def test_a_local_copy_keeps_holes(tmp_path: Path, pool: DiskPool) -> None:
    """A content that is here under another name."""
    data = bytes(3 * MIB) + noise(MIB) + bytes(MIB)
    part = await begun(tmp_path, pool, target(data))
    (tmp_path / "other").touch()
    with (tmp_path / "other").open("r+b") as other:
        other.seek(3 * MIB)
        other.write(data[3 * MIB : 4 * MIB])
        other.truncate(len(data))
        for index in range(part.manifest.geometry.chunk_count):
            descriptor = os.open(part.files.data_path, os.O_RDWR)
            part.files.copy(descriptor, index, other.fileno())
            os.close(descriptor)
    assert part.files.data_path.read_bytes() == data
    assert allocated(part.files.data_path) < 2 * MIB
    await part.close()
    part.shut()


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 3 * MIB])
def test_zeros_are_told_from_data(size: int) -> None:
    """Whatever the length, and wherever the first other byte is."""
    assert is_zero(bytes(size))
    for place in {0, size // 2, size - 1} if size else ():
        assert not is_zero(memoryview(bytes(place) + b"\1" + bytes(size - place - 1)))


def test_where_holes_are_not_known_all_is_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system may not have SEEK_DATA."""

    def refuse(*_: int) -> int:
        raise OSError(22, "invalid argument")

    path = tmp_path / "sparse"
    path.touch()
    os.truncate(path, MIB)
    with path.open("rb") as file:
        assert list(data_ranges(file.fileno(), 0, MIB)) == []
        monkeypatch.setattr(os, "lseek", refuse)
        assert list(data_ranges(file.fileno(), 5, MIB)) == [(5, MIB)]


# What is in the way.


@pytest.mark.parametrize("kind", ["fifo", "socket", "dangling", "link to a pipe", "folder"])
async def test_what_appears_meanwhile_is_not_replaced(tmp_path: Path, pool: DiskPool, kind: str) -> None:
    """With --overwrite as well: only a regular file is. The part is kept."""
    final = tmp_path / "file.bin"
    part = await begun(tmp_path, pool, overwrite=True)
    await fill(part, DATA)
    _make(final, kind)
    before = final.lstat()
    with pytest.raises(StorageError):
        await part.commit()
    assert final.lstat().st_ino == before.st_ino
    await part.close()
    part.shut()
    assert part.files.data_path.exists()


def _make(path: Path, kind: str) -> None:
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "socket":
            os.mknod(path, stat.S_IFSOCK | 0o600)
        case "dangling":
            path.symlink_to("nowhere")
        case "link to a pipe":
            os.mkfifo(path.with_name("pipe"))
            path.symlink_to("pipe")
        case _:
            path.mkdir()
