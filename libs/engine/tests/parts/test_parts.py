"""Parts on their own: what is written, claimed, resumed and put in place."""

import asyncio
import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from minga_core.errors import (
    AlreadyRunningError,
    ChunkCorruptError,
    ContentNotHeldError,
    InvalidArgumentError,
    NameTakenError,
    NoSpaceError,
    StorageError,
)
from minga_core.ids import digest
from minga_core.names import Name
from minga_engine.parts import part as parts
from minga_engine.parts.disk import DiskPool
from minga_engine.parts.part import Part
from minga_engine.parts.part_files import PartFiles, PartTarget, decode_meta, encode_meta
from minga_engine.parts.standalone_part import open_part

from .support import chunk_of, eventually, fill, manifest_of, noise

MIB = 1024 * 1024
DATA = noise(3 * MIB + 7)
MANIFEST = manifest_of(DATA)
COUNT = MANIFEST.geometry.chunk_count


def target(name: str = "file.bin", data: bytes = DATA) -> PartTarget:
    manifest = manifest_of(data)
    return PartTarget(Name(name), manifest, manifest.content_id, 5)


@pytest.fixture
async def pool() -> AsyncIterator[DiskPool]:
    made = DiskPool(2)
    yield made
    made.close()


async def begun(tmp_path: Path, pool: DiskPool, *, overwrite: bool = False, wanted: PartTarget | None = None) -> Part:
    return await open_part(
        tmp_path / "out/file.bin", wanted or target(), pool, overwrite=overwrite, folder=tmp_path / "parts"
    )


async def read(pool: DiskPool, part: Part, index: int) -> bytes:
    """A chunk's bytes."""
    with part.open_chunk(index) as chunk:
        return await pool.run(chunk.read)


def left_over(tmp_path: Path) -> list[str]:
    folder = tmp_path / "parts"
    return sorted(path.suffix for path in folder.iterdir()) if folder.exists() else []


def no_space(descriptor: int, data: memoryview, offset: int) -> int:
    """Instead of `os.pwrite`: the disk is full."""
    raise OSError(errno.ENOSPC, "No space left on device")


async def test_a_whole_part_appears_under_its_name_and_leaves_nothing_behind(tmp_path: Path, pool: DiskPool) -> None:
    """Bytes are those of the content, written in any order by many at once."""
    part = await begun(tmp_path, pool)
    await asyncio.gather(*(fill(part, DATA, [index]) for index in reversed(range(COUNT))))
    assert not (tmp_path / "out/file.bin").exists()
    row = await part.commit()
    await part.close()
    assert (tmp_path / "out/file.bin").read_bytes() == DATA
    assert (row.key.name, row.key.content_id, row.published_ns) == ("file.bin", MANIFEST.content_id, 5)
    assert not (tmp_path / "parts").exists()


@pytest.mark.parametrize(
    "bad",
    [
        lambda good: bytes([good[0] ^ 1]) + good[1:],
        lambda good: good[:-1],
        lambda good: good + b"x",
        lambda good: b"",
    ],
    ids=["a flipped bit", "too short", "too long", "empty"],
)
async def test_wrong_bytes_are_refused_and_not_written(tmp_path: Path, pool: DiskPool, bad: object) -> None:
    """Not one of them reaches the disk, and the chunk can still come."""
    part = await begun(tmp_path, pool)
    assert callable(bad)
    with pytest.raises(ChunkCorruptError):
        await part.write_chunk(2, bad(chunk_of(DATA, 2)))
    assert not part.held
    assert part.files.data_path.read_bytes() == bytes(len(DATA))
    with pytest.raises(ContentNotHeldError):
        await read(pool, part, 2)
    await fill(part, DATA, [2])
    assert await read(pool, part, 2) == chunk_of(DATA, 2)
    await part.discard()


async def test_twins_of_a_chunk_are_written_once(
    tmp_path: Path, pool: DiskPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hedged chunk that comes twice at the same time must not touch a file that may be in place by then."""
    part = await begun(tmp_path, pool)
    written: list[int] = []
    real = PartFiles.write

    def write(self: PartFiles, descriptor: int, index: int, data: bytes) -> None:
        written.append(index)
        real(self, descriptor, index, data)

    monkeypatch.setattr(PartFiles, "write", write)
    await asyncio.gather(*(fill(part, DATA) for _ in range(3)))
    assert sorted(written) == list(range(COUNT))
    await part.commit()
    await fill(part, DATA)
    assert sorted(written) == list(range(COUNT))


async def test_after_close_what_is_held_is_resumed(tmp_path: Path, pool: DiskPool) -> None:
    """Only missing chunks have to come again."""
    part = await begun(tmp_path, pool)
    await fill(part, DATA, [0, 3, COUNT - 1])
    await part.close()
    await part.close()
    with pytest.raises(StorageError):
        await fill(part, DATA, [1])
    again = await begun(tmp_path, pool)
    assert list(again.held) == [0, 3, COUNT - 1]
    assert again.held_bytes == sum(len(chunk_of(DATA, index)) for index in again.held)
    await fill(again, DATA)
    await again.commit()
    assert (tmp_path / "out/file.bin").read_bytes() == DATA


async def test_progress_is_saved_while_chunks_come(
    tmp_path: Path, pool: DiskPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a close, and also when no further chunk comes to trigger it."""
    monkeypatch.setattr(parts, "SAVE_SECONDS", 0.05)
    part = await begun(tmp_path, pool)
    await fill(part, DATA, [1])
    await eventually(lambda: left_over(tmp_path) == [".data", ".held", ".meta"], "the progress is saved")
    await part.discard()
    assert left_over(tmp_path) == []


async def test_data_are_synced_before_they_are_claimed(
    tmp_path: Path, pool: DiskPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order of the system calls: the data's fdatasync, then the bitmap's, then its rename."""
    part = await begun(tmp_path, pool)
    await fill(part, DATA, [1])
    calls: list[str] = []
    sync, replace = os.fdatasync, Path.replace

    def fdatasync(descriptor: int) -> None:
        calls.append("sync " + Path(os.readlink(f"/proc/self/fd/{descriptor}")).suffixes[0])
        sync(descriptor)

    def renamed(self: Path, to: Path) -> Path:
        calls.append("rename " + self.suffixes[0])
        return replace(self, to)

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    monkeypatch.setattr(Path, "replace", renamed)
    await part.close()
    assert calls == ["sync .data", "sync .meta", "rename .meta", "sync .held", "rename .held"]


@pytest.mark.parametrize("damage", ["bit", "short", "empty", "other"])
async def test_a_damaged_bitmap_claims_nothing(tmp_path: Path, pool: DiskPool, damage: str) -> None:
    """The chunks are fetched again."""
    part = await begun(tmp_path, pool)
    await fill(part, DATA, [0, 1])
    await part.close()
    (held,) = (tmp_path / "parts").glob("*.held")
    saved = held.read_bytes()
    held.write_bytes(
        {"bit": bytes([saved[0] ^ 1]) + saved[1:], "short": saved[:-1], "empty": b"", "other": b"x" + digest(b"x")}[
            damage
        ]
    )
    again = await begun(tmp_path, pool)
    assert not again.held
    await again.close()


@pytest.mark.parametrize("loss", ["deleted", "truncated", "replaced"])
async def test_a_bitmap_never_speaks_for_other_data(tmp_path: Path, pool: DiskPool, loss: str) -> None:
    """1. A part is saved. 2. Its data file is lost. 3. It is made anew, and the process dies before it saves anything.

    4. The old bitmap, which would fit by its size, claims nothing.
    """
    part = await begun(tmp_path, pool)
    await fill(part, DATA, [0, 1])
    await part.close()
    data = part.files.data_path
    if loss == "truncated":
        os.truncate(data, 10)
    else:
        data.rename(tmp_path / "old")
    if loss == "replaced":
        data.write_bytes(bytes(len(DATA)))
    else:
        os.close(PartFiles(tmp_path / "parts", target()).open().descriptor)
    again = await begun(tmp_path, pool)
    assert not again.held
    await again.close()


async def test_one_part_has_one_writer(tmp_path: Path, pool: DiskPool) -> None:
    """The second is refused, and does the first no harm."""
    part = await begun(tmp_path, pool)
    await fill(part, DATA, [0])
    with pytest.raises(AlreadyRunningError):
        await begun(tmp_path, pool)
    await fill(part, DATA)
    await part.commit()
    assert (tmp_path / "out/file.bin").read_bytes() == DATA


async def test_a_file_that_is_there_is_not_replaced_unasked(tmp_path: Path, pool: DiskPool) -> None:
    """Neither when it was there before, nor when it came meanwhile; the part is kept for a retry."""
    out = tmp_path / "out/file.bin"
    part = await begun(tmp_path, pool)
    await fill(part, DATA)
    out.parent.mkdir()
    out.write_bytes(b"mine")
    with pytest.raises(NameTakenError):
        await part.commit()
    await part.close()
    assert out.read_bytes() == b"mine"
    with pytest.raises(NameTakenError):
        await begun(tmp_path, pool)
    again = await begun(tmp_path, pool, overwrite=True)
    assert again.held.complete
    await again.commit()
    assert out.read_bytes() == DATA


async def test_a_commit_that_is_cancelled_is_done_or_not_begun(
    tmp_path: Path, pool: DiskPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1. The commit syncs. 2. Its caller is cancelled. 3. The file is in place, and no part is left."""
    part = await begun(tmp_path, pool)
    await fill(part, DATA)
    syncing, go, real = threading.Event(), threading.Event(), os.fsync

    def fsync(descriptor: int) -> None:
        syncing.set()
        go.wait(10)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    commit = asyncio.create_task(part.commit())
    await eventually(syncing.is_set, "the commit syncs")
    commit.cancel()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await commit
    await part.close()
    assert (tmp_path / "out/file.bin").read_bytes() == DATA
    assert left_over(tmp_path) == []


async def test_a_reader_keeps_reading_the_right_file_through_the_commit(
    tmp_path: Path, pool: DiskPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1. A chunk is being read. 2. The part is committed and closed. 3. The reader gets the chunk."""
    part = await begun(tmp_path, pool)
    await fill(part, DATA)
    reading, go, real = threading.Event(), threading.Event(), os.pread

    def pread(descriptor: int, length: int, offset: int) -> bytes:
        reading.set()
        go.wait(10)
        return real(descriptor, length, offset)

    monkeypatch.setattr(os, "pread", pread)
    reader = asyncio.create_task(read(pool, part, 1))
    await eventually(reading.is_set, "the chunk is being read")
    await part.commit()
    go.set()
    assert await reader == chunk_of(DATA, 1)


async def test_no_descriptor_is_left_open(tmp_path: Path, pool: DiskPool) -> None:
    """After commit, close and discard alike."""
    await (await begun(tmp_path, pool)).close()
    before = len(os.listdir("/proc/self/fd"))
    for end in ("commit", "close", "discard"):
        part = await begun(tmp_path, pool, overwrite=True)
        await fill(part, DATA)
        await getattr(part, end)()
    assert len(os.listdir("/proc/self/fd")) == before


async def test_a_full_disk_is_told_and_what_is_held_is_kept(
    tmp_path: Path, pool: DiskPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line with the file's name; other chunks can go on once there is room."""
    part = await begun(tmp_path, pool)
    await fill(part, DATA, [0])
    real = os.pwrite

    monkeypatch.setattr(os, "pwrite", no_space)
    with pytest.raises(NoSpaceError, match=r"^cannot write file.bin: no space left on device$"):
        await fill(part, DATA, [1])
    monkeypatch.setattr(os, "pwrite", real)
    assert list(part.held) == [0]
    await fill(part, DATA)
    await part.commit()
    assert (tmp_path / "out/file.bin").read_bytes() == DATA


async def test_a_beginning_that_is_cancelled_leaves_nothing(
    tmp_path: Path, pool: DiskPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, go_on = threading.Event(), threading.Event()
    open_files = PartFiles.open

    def slow_open(files: PartFiles) -> object:
        found = open_files(files)
        opened.set()
        go_on.wait(10)
        return found

    monkeypatch.setattr(PartFiles, "open", slow_open)
    beginning = asyncio.create_task(begun(tmp_path, pool))
    await eventually(opened.is_set, "the files are open")
    beginning.cancel()
    await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await beginning
    assert not left_over(tmp_path)


async def test_a_part_that_never_got_its_size_leaves_nothing(
    tmp_path: Path, pool: DiskPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int, size_bytes: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "ftruncate", refuse)
    with pytest.raises(NoSpaceError):
        await begun(tmp_path, pool)
    assert not left_over(tmp_path)


async def test_progress_that_cannot_be_saved_stops_nothing(
    tmp_path: Path, pool: DiskPool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged; the download goes on."""
    monkeypatch.setattr(parts, "SAVE_SECONDS", 0.01)
    part = await begun(tmp_path, pool)
    (tmp_path / "parts").rename(tmp_path / "moved")
    await fill(part, DATA, [0])
    await eventually(lambda: "part_progress_not_saved" in caplog.text, "the failure is logged")
    (tmp_path / "moved").rename(tmp_path / "parts")
    await fill(part, DATA)
    await part.commit()


async def test_a_part_that_the_full_disk_lets_nobody_describe_is_not_kept(
    tmp_path: Path, pool: DiskPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found by the chaos suite: data that no description belonged to, and half a description, lay on the full disk."""
    part = await begun(tmp_path, pool)
    await fill(part, DATA, [0])
    real = os.pwrite
    wrote: list[int] = []

    def full(descriptor: int, data: memoryview, offset: int) -> int:
        if wrote:
            no_space(descriptor, data, offset)
        wrote.append(real(descriptor, data[:10], offset))
        return wrote[0]

    monkeypatch.setattr(os, "pwrite", full)
    await part.close()
    assert wrote == [10]
    assert left_over(tmp_path) == []


async def test_a_save_that_fails_costs_no_earlier_one(
    tmp_path: Path, pool: DiskPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was described stays, with the chunks of the save before; no half file is beside them."""
    part = await begun(tmp_path, pool)
    await fill(part, DATA, [0])
    await part.close()
    again = await begun(tmp_path, pool)
    await fill(again, DATA, [1])
    real = os.pwrite

    monkeypatch.setattr(os, "pwrite", no_space)
    await again.close()
    monkeypatch.setattr(os, "pwrite", real)
    assert left_over(tmp_path) == [".data", ".held", ".meta"]
    third = await begun(tmp_path, pool)
    assert list(third.held) == [0]
    await third.discard()


async def test_what_a_killed_process_had_half_saved_goes_with_the_part(tmp_path: Path, pool: DiskPool) -> None:
    """Files that were to replace the bitmap and the description."""
    part = await begun(tmp_path, pool)
    await fill(part, DATA, [0])
    await part.close()
    for path in list((tmp_path / "parts").iterdir()):
        if path.suffix != ".data":
            path.with_name(path.name + ".new").write_bytes(b"half")
    again = await begun(tmp_path, pool)
    await fill(again, DATA)
    await again.commit()
    assert left_over(tmp_path) == []


@pytest.mark.parametrize("damage", ["bit", "short", "version", "name", "empty", "no json"])
def test_a_damaged_description_is_refused(damage: str) -> None:
    """Also one whose checksum is right."""
    good = encode_meta(target())
    body = good[:-32]
    bad = {
        "bit": bytes([good[9] ^ 1]) + good[1:],
        "short": good[:-1],
        "empty": b"",
        "version": _resealed(body.replace(b'"version": 1', b'"version": 9')),
        "name": _resealed(body.replace(b"file.bin", b"../../bi")),
        "no json": _resealed(body.replace(b'{"version"', b'["version"')),
    }[damage]
    with pytest.raises(InvalidArgumentError):
        decode_meta(bad)


def _resealed(body: bytes) -> bytes:
    return body + digest(body)


_WRITER = """
import asyncio, random, sys
from pathlib import Path
from minga_engine.parts import part as parts
from minga_engine.parts.disk import DiskPool
from minga_engine.parts.standalone_part import open_part
from libs.engine.tests.parts.test_parts import COUNT, DATA, chunk_of, target

async def main(folder):
    parts.SAVE_SECONDS = 0.002
    out, kept = folder / "out/file.bin", folder / "parts"
    part = await open_part(out, target(), DiskPool(2), overwrite=False, folder=kept)
    order = list(range(COUNT))
    random.shuffle(order)
    for index in order:
        await part.write_chunk(index, chunk_of(DATA, index))
        print(index, flush=True)
        await asyncio.sleep(0.004)

asyncio.run(main(Path(sys.argv[1])))
"""


@pytest.mark.parametrize("after", [1, 4, 9])
async def test_a_part_survives_sigkill_with_true_claims_only(tmp_path: Path, pool: DiskPool, after: int) -> None:
    """1. A process writes chunks. 2. It is killed without warning. 3. What the part claims is there, byte for byte, and
    was written. 4. The rest completes it."""
    writer = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _WRITER, str(tmp_path), stdout=subprocess.PIPE, cwd=Path(__file__).parents[4]
    )
    assert writer.stdout is not None
    async with asyncio.timeout(30):
        written = {int(await writer.stdout.readline()) for _ in range(after)}
        writer.send_signal(signal.SIGKILL)
        rest = await writer.stdout.read()
        await writer.wait()
    written |= {int(line) for line in rest.split()}
    part = await begun(tmp_path, pool)
    # One more than it reported may be written: it was killed in between.
    assert len(set(part.held) - written) <= 1
    for index in part.held:
        assert await read(pool, part, index) == chunk_of(DATA, index)
    if after == 9:
        assert part.held
    await fill(part, DATA)
    await part.commit()
    assert (tmp_path / "out/file.bin").read_bytes() == DATA


@pytest.mark.parametrize("whole", [True, False], ids=["all chunks claimed", "some chunks claimed"])
async def test_a_damaged_part_does_not_become_a_whole_file_with_wrong_bytes(
    tmp_path: Path, pool: DiskPool, *, whole: bool
) -> None:
    """A claimed chunk that was changed on the disk is missing again when the part is resumed, and after a kill too."""
    part = await begun(tmp_path, pool)
    await fill(part, DATA, None if whole else [0, 1, 2])
    await part.close()
    part.shut()
    with part.files.data_path.open("r+b") as data:
        data.seek(part.manifest.geometry.offset(1) + 5)
        data.write(b"damage")
    again = await begun(tmp_path, pool)
    assert 1 not in again.held
    assert again.held_count == (COUNT if whole else 3) - 1
    assert 1 not in PartFiles(tmp_path / "parts", target())._saved(again.files.data_path.stat().st_ino)
    await fill(again, DATA)
    await again.commit()
    assert (tmp_path / "out/file.bin").read_bytes() == DATA
