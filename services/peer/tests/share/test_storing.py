"""Parts in a store: announced, served, resumed, copied, put in place."""

import asyncio
import os
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest

from minga_core.chunks import ChunkSet
from minga_core.errors import (
    AlreadyRunningError,
    ChunkCorruptError,
    ContentNotHeldError,
    NameTakenError,
    NoSpaceError,
    StorageError,
)
from minga_core.names import Name
from minga_core.records import HoldingState, RowKey
from minga_engine.parts.files import Fingerprint
from minga_peer.share import part_store
from minga_peer.share.conditions import Kind
from minga_peer.share.part_store import PART_LIFE_SECONDS
from minga_peer.share.unwritten import Change

from .conftest import Opener, Shared, chunk_of, eventually, fill, manifest_of, noise, read_chunk

MIB = 1024 * 1024
DATA = noise(2 * MIB + 3)
OTHER = noise(2 * MIB + 3, seed=2)
MANIFEST = manifest_of(DATA)
CONTENT = MANIFEST.content_id
COUNT = MANIFEST.geometry.chunk_count


@pytest.fixture
async def shared(opened: Opener) -> Shared:
    return await opened()


def parts_of(shared: Shared) -> list[str]:
    return sorted(path.suffix for path in (shared.root / ".minga/parts").iterdir())


async def test_a_part_is_told_after_its_first_chunk_and_complete_at_its_commit(shared: Shared) -> None:
    """Two changes in all: partial, complete. The file is never hashed."""
    part = await shared.part("a/file.bin", DATA)
    assert shared.seen.changes == []
    assert shared.store.find(Name("a/file.bin")) is None
    await fill(part, DATA)
    assert shared.seen.states("a/file.bin") == {HoldingState.PARTIAL}
    row = await part.commit()
    await part.close()
    assert [len(change.put) for change in shared.seen.changes] == [1, 1]
    assert shared.seen.changes[1].remove == ()
    assert shared.store.find(Name("a/file.bin")) == row == shared.seen.table[RowKey(Name("a/file.bin"), CONTENT)]
    assert (row.published_ns, row.size_bytes) == (5, len(DATA))
    assert (shared.root / "a/file.bin").read_bytes() == DATA
    assert parts_of(shared) == []
    shared.drop("marker", b"x")
    await shared.shares("marker", b"x")
    assert shared.metrics.misses == 1


async def test_a_download_is_known_after_a_restart(opened: Opener) -> None:
    """Its digests and its source's publishing time are in the index before it is announced."""
    async with opened.running() as first:
        part = await first.part("file.bin", DATA)
        await fill(part, DATA)
        row = await part.commit()
    second = await opened()
    assert second.store.find(Name("file.bin")) == row
    assert second.metrics.misses == 0


async def test_the_chunks_of_a_part_are_served_at_once(shared: Shared) -> None:
    """Those that are verified, and no others."""
    part = await shared.part("file.bin", DATA)
    await fill(part, DATA, [2])
    assert shared.store.held(CONTENT) == ChunkSet(COUNT, [2])
    assert await shared.store.manifest(CONTENT) == MANIFEST
    assert await read_chunk(shared.store, CONTENT, 2) == chunk_of(DATA, 2)
    with pytest.raises(ContentNotHeldError):
        await read_chunk(shared.store, CONTENT, 1)
    with pytest.raises(ChunkCorruptError):
        await part.write_chunk(1, chunk_of(OTHER, 1))
    assert shared.store.held(CONTENT) == ChunkSet(COUNT, [2])


async def test_an_empty_file_is_stored(shared: Shared) -> None:
    """Whole from the start."""
    part = await shared.part("empty", b"")
    assert part.held.complete
    await part.commit()
    assert (await shared.shares("empty", b"")).size_bytes == 0
    assert (shared.root / "empty").read_bytes() == b""


async def test_a_part_is_written_by_one_at_a_time(shared: Shared) -> None:
    """The second is refused until the first lets go, then goes on where it stopped."""
    first = await shared.part("file.bin", DATA)
    with pytest.raises(AlreadyRunningError):
        await shared.part("file.bin", DATA)
    other_name = await shared.part("other.bin", DATA)
    await fill(first, DATA, [0, 1])
    await first.close()
    assert shared.seen.states("file.bin") == {HoldingState.PARTIAL}
    assert await read_chunk(shared.store, CONTENT, 1) == chunk_of(DATA, 1)
    second = await shared.part("file.bin", DATA)
    assert list(second.held) == [0, 1]
    await fill(second, DATA)
    await second.commit()
    await other_name.close()


async def test_parts_of_an_earlier_run_are_served_and_resumed(opened: Opener) -> None:
    """Also when the run before was killed after its last save: nothing is closed here."""
    async with opened.running() as first:
        part = await first.part("file.bin", DATA)
        await fill(part, DATA, [1, 3])
    second = await opened()
    (row,) = second.store.table.rows()
    assert (row.key.name, row.state, row.published_ns) == ("file.bin", HoldingState.PARTIAL, 5)
    assert await read_chunk(second.store, CONTENT, 3) == chunk_of(DATA, 3)
    part = await second.part("file.bin", DATA)
    assert list(part.held) == [1, 3]
    await fill(part, DATA)
    assert (await part.commit()).published_ns == 5


async def test_broken_parts_are_deleted_with_a_word(opened: Opener, caplog: pytest.LogCaptureFixture) -> None:
    """Damaged descriptions, data without one, and files that are none of ours."""
    async with opened.running() as first:
        part = await first.part("file.bin", DATA)
        await fill(part, DATA, [1])
    folder = opened.root / ".minga/parts"
    (meta,) = folder.glob("*.meta")
    meta.write_bytes(meta.read_bytes()[:-1])
    (folder / "stray.data").write_bytes(b"x")
    second = await opened()
    assert second.store.table.rows() == []
    assert parts_of(second) == []
    assert "part_damaged" in caplog.text


async def test_a_crash_between_the_name_and_the_tidying_up_leaves_a_whole_file_and_no_part(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1. The file has its name. 2. The process dies before the part's name is taken away (simulated). 3. After the
    restart the file is shared, the part is gone, and the file is whole."""
    async with opened.running() as first:
        part = await first.part("file.bin", DATA)
        await fill(part, DATA)
        await part.close()
    (data,) = (opened.root / ".minga/parts").glob("*.data")
    os.link(data, opened.root / "file.bin")
    second = await opened()
    row = await second.shares("file.bin", DATA)
    assert second.store.table.rows() == [row]
    assert parts_of(second) == []


async def test_parts_that_nobody_resumes_expire(opened: Opener) -> None:
    """After a week, counted from their last use; resuming starts the week again."""
    async with opened.running() as first:
        for name in ("old", "resumed"):
            part = await first.part(name, DATA)
            await fill(part, DATA, [1])
            await part.close()
        long_ago = first.store.folder.clock.wall() - PART_LIFE_SECONDS - 60
        for path in (opened.root / ".minga/parts").glob("*.held"):
            os.utime(path, (long_ago, long_ago))
        await (await first.part("resumed", DATA)).close()
    second = await opened()
    assert [row.key.name for row in second.store.table.rows()] == ["resumed"]
    for path in (opened.root / ".minga/parts").glob("*.held"):
        os.utime(path, (long_ago, long_ago))
    await second.store.parts._expire()
    assert second.store.table.rows() == []


async def test_the_oldest_parts_go_when_there_are_too_many(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has an open descriptor. One that is being written is not counted, nor touched."""
    monkeypatch.setattr(part_store, "MAX_KEPT_PARTS", 2)
    for age, name in enumerate(("newest", "older", "oldest")):
        part = await shared.part(name, DATA)
        await fill(part, DATA, [1])
        await part.close()
        last_used = shared.store.folder.clock.wall() - age
        os.utime(part.files.data_path.with_suffix(".held"), (last_used, last_used))
    writing = await shared.part("writing", DATA)
    await fill(writing, DATA, [1])
    await shared.store.parts._expire()
    assert {row.key.name for row in shared.store.table.rows()} == {"newest", "older", "writing"}
    await writing.close()


async def test_another_content_under_the_name_is_refused_unless_overwrite(shared: Shared) -> None:
    """At the beginning and at the commit; the old file stays whole until the new one takes its place."""
    shared.drop("file.bin", OTHER)
    old = await shared.shares("file.bin", OTHER)
    with pytest.raises(NameTakenError):
        await shared.part("file.bin", DATA)
    part = await shared.part("file.bin", DATA, overwrite=True)
    await fill(part, DATA)
    assert await read_chunk(shared.store, old.key.content_id, 0) == chunk_of(OTHER, 0)
    assert shared.seen.states("file.bin") == {HoldingState.COMPLETE, HoldingState.PARTIAL}
    row = await part.commit()
    last = shared.seen.changes[-1]
    assert (last.put, last.remove) == ((row,), (old.key,))
    assert (shared.root / "file.bin").read_bytes() == DATA
    assert shared.store.held(old.key.content_id) is None


async def test_a_file_that_came_meanwhile_is_not_replaced(shared: Shared) -> None:
    """1. A part begins. 2. Somebody drops another file there. 3. The commit is refused; the chunks are kept."""
    part = await shared.part("file.bin", DATA)
    await fill(part, DATA)
    shared.drop("file.bin", b"mine")
    with pytest.raises(NameTakenError):
        await part.commit()
    await part.close()
    await shared.shares("file.bin", b"mine")
    again = await shared.part("file.bin", DATA, overwrite=True)
    assert again.held.complete
    await again.commit()
    await shared.shares("file.bin", DATA)


async def test_a_name_taken_by_a_file_that_is_not_hashed_yet_is_taken(
    shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is fetched for it; with overwrite it is replaced."""
    monkeypatch.setattr(shared.store.sync._queue, "settle_seconds", 3600.0)
    shared.drop("file.bin", b"not hashed")
    with pytest.raises(NameTakenError, match="not known yet"):
        await shared.part("file.bin", DATA)
    part = await shared.part("file.bin", DATA, overwrite=True)
    await fill(part, DATA)
    await part.commit()
    await shared.shares("file.bin", DATA)


async def test_an_edit_that_was_not_noticed_yet_is_not_overwritten_by_the_same_content(
    shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1. A content is shared. 2. It is stored again under its name. 3. Before the commit a user edits the file.
    4. The edit stays."""
    path = shared.drop("file.bin", DATA)
    await shared.shares("file.bin", DATA)
    part = await shared.part("file.bin", DATA)
    assert part.held.complete
    path.write_bytes(b"edited")
    with pytest.raises(NameTakenError):
        await part.commit()
    await part.close()
    assert path.read_bytes() == b"edited"
    await shared.shares("file.bin", b"edited")


async def test_storing_what_is_there_already_changes_nothing(shared: Shared) -> None:
    """The same content under the same name: the file is not touched, the row stays."""
    path = shared.drop("file.bin", DATA)
    row = await shared.shares("file.bin", DATA)
    inode = path.stat().st_ino
    changes = len(shared.seen.changes)
    part = await shared.part("file.bin", DATA)
    assert await part.commit() == row
    assert path.stat().st_ino == inode
    assert len(shared.seen.changes) == changes
    assert parts_of(shared) == []


@pytest.mark.parametrize("kernel_copies", [True, False])
async def test_a_content_that_is_here_under_another_name_is_copied(
    shared: Shared, kernel_copies: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The part begins whole, with or without copy_file_range(2); both names are shared then."""
    shared.drop("here.bin", DATA)
    await shared.shares("here.bin", DATA)
    if not kernel_copies:

        def refuse(*arguments: object) -> int:
            raise OSError(18, "Invalid cross-device link")

        monkeypatch.setattr(os, "copy_file_range", refuse)
    part = await shared.part("there.bin", DATA)
    assert part.held.complete
    await part.commit()
    assert (shared.root / "there.bin").read_bytes() == DATA
    (shared.root / "there.bin").write_bytes(b"changed")
    assert (shared.root / "here.bin").read_bytes() == DATA


async def test_a_copy_of_a_file_that_changed_takes_only_what_is_true(
    shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chunks are verified after the copy; the rest comes from others, and the changed file is hashed again."""
    path = shared.drop("here.bin", DATA)
    await shared.shares("here.bin", DATA)
    monkeypatch.setattr(shared.store.sync._comparer, "look_at", lambda paths: asyncio.sleep(0))
    await read_chunk(shared.store, CONTENT, 0)
    with path.open("r+b") as file:
        file.seek(2 * 256 * 1024)
        file.write(b"changed")
    part = await shared.part("there.bin", DATA)
    assert list(part.held) == [0, 1]
    monkeypatch.undo()
    await fill(part, DATA)
    await part.commit()
    assert (shared.root / "there.bin").read_bytes() == DATA
    await eventually(lambda: shared.content("here.bin") not in (None, CONTENT), "the changed file is hashed again")


@pytest.mark.parametrize("obstacle", ["a file", "a link"])
async def test_a_path_through_something_else_is_refused_before_anything_is_fetched(
    shared: Shared, obstacle: str, tmp_path: Path
) -> None:
    """A file or a link where a folder would be; nothing is made on the other side."""
    (tmp_path / "outside").mkdir()
    if obstacle == "a file":
        shared.drop("a", b"x")
    else:
        (shared.root / "a").symlink_to(tmp_path / "outside")
    with pytest.raises(StorageError, match="cannot put a/file"):
        await shared.part("a/file.bin", DATA)
    assert list((tmp_path / "outside").iterdir()) == []


async def test_a_content_larger_than_what_is_free_is_refused_at_once(opened: Opener) -> None:
    """Capacity counts shared files and parts at their full size."""
    shared = await opened(capacity_bytes=5 * MIB)
    shared.drop("file", noise(MIB))
    await shared.shares("file", noise(MIB))
    assert shared.store.status().free_bytes == 4 * MIB
    part = await shared.part("a", DATA)
    assert shared.store.status().free_bytes == 4 * MIB - len(DATA)
    with pytest.raises(NoSpaceError, match=r"^b has 2"):
        await shared.part("b", OTHER)
    await part.close()
    assert shared.store.status().free_bytes == 4 * MIB
    await (await shared.part("b", OTHER)).close()


async def test_what_parts_will_take_is_not_promised_twice(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    """Space on the disk that a sparse part has not written yet counts as taken; what is written, the disk counts."""
    disk = SimpleNamespace(f_bavail=3 * len(DATA), f_frsize=1, f_flag=0)
    monkeypatch.setattr(os, "statvfs", lambda path: disk)
    part = await shared.part("file.bin", DATA)
    assert shared.store.status().free_bytes == 2 * len(DATA)
    await fill(part, DATA, [0])
    disk.f_bavail -= len(chunk_of(DATA, 0))
    await shared.store.folder.disk.run(shared.store.folder.space.measure)
    assert shared.store.status().free_bytes == 2 * len(DATA)
    await part.close()


async def test_a_file_removed_while_it_is_hashed_once_more_stays_removed(
    shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1. A shared file is hashed again. 2. While its digests are written into the index, it is removed. 3. It does not
    come back."""
    shared.drop("file.bin", DATA)
    await shared.shares("file.bin", DATA)
    writing, go, real = threading.Event(), threading.Event(), shared.store.folder.index._file.write

    def write(changes: list[Change], *, complete: bool) -> None:
        if not writing.is_set():
            writing.set()
            go.wait(10)
        real(changes, complete=complete)

    monkeypatch.setattr(shared.store.folder.index._file, "write", write)
    file = shared.store.inventory.files[Name("file.bin")]
    size_bytes, _, *others = file.fingerprint.numbers
    changed = file.changed(Fingerprint(size_bytes, 1, *others))
    again = asyncio.create_task(shared.store.sync._outcomes._share_hashed([(changed, MANIFEST)]))
    await eventually(writing.is_set, "the index is written")
    removal = asyncio.create_task(shared.store.remove(Name("file.bin")))
    await eventually(lambda: shared.content("file.bin") is None, "it is removed")
    go.set()
    assert await again == {"file.bin"}
    await removal
    assert shared.store.table.rows() == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    disk = tmp_path / "small"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", disk], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"mounting a tmpfs is not allowed here: {mounted.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


async def test_a_disk_that_fills_up_fails_that_part_and_nothing_else(opened: Opener, small_disk: Path) -> None:
    """1. A part fits. 2. Somebody else fills the disk. 3. The next chunk says so in one line. 4. What is shared is
    served still. 5. Once there is room, the part goes on where it stopped."""
    shared = await opened(small_disk / "shared")
    shared.drop("small", b"x")
    row = await shared.shares("small", b"x")
    part = await shared.part("file.bin", DATA)
    await fill(part, DATA, [0])
    filler = small_disk / "filler"
    room = os.statvfs(small_disk)
    filler.write_bytes(bytes(room.f_bavail * room.f_frsize))
    with pytest.raises(NoSpaceError, match=r"^cannot write file.bin: no space left on device$"):
        await fill(part, DATA)
    assert await read_chunk(shared.store, row.key.content_id, 0) == b"x"
    held = part.held
    assert 0 in held
    filler.unlink()
    assert part.held == held
    await fill(part, DATA)
    await part.commit()
    await shared.shares("file.bin", DATA)


async def test_a_full_disk_costs_no_time_of_publication(
    opened: Opener, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1. Somebody fills the disk. 2. A file is changed in place, and published, until the index cannot be written.
    3. Once there is room, the index has the last of it, without another change: a crash loses nothing."""
    monkeypatch.setattr("minga_peer.share.store.SPACE_CHECK_SECONDS", 0.05)
    shared = await opened(small_disk / "shared")
    path = shared.drop("a", b"000")
    await shared.published("a", b"000", 100)
    filler = small_disk / "filler"
    room = os.statvfs(small_disk)
    filler.write_bytes(bytes(room.f_bavail * room.f_frsize))
    for number in range(1, 200):
        data = b"%03d" % number
        with path.open("r+b") as file:
            file.write(data)
        await shared.published("a", data, 100 + number)
        if shared.problem("index.sqlite cannot be written"):
            break
    assert shared.problem("index.sqlite cannot be written: database or disk is full")
    filler.unlink()
    await eventually(lambda: not shared.store.conditions.count(Kind.INDEX), "all is written")
    with closing(sqlite3.connect(small_disk / "shared/.minga/index.sqlite")) as database:
        query = "SELECT content, published FROM files WHERE name = 'a'"
        assert database.execute(query).fetchall() == [(manifest_of(data).content_id.raw, 100 + number)]


async def test_a_download_that_replaces_a_file_being_hashed_wins(
    shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1. A file is being hashed. 2. A download takes its name. 3. The old digests come too late to be announced."""
    shared.drop("file.bin", OTHER)
    real = shared.store.sync._on_hashed
    late: list[object] = []

    async def keep(outcomes: list[object]) -> None:
        late.extend(outcomes)

    monkeypatch.setattr(shared.store.sync._queue, "_on_hashed", keep)
    await eventually(lambda: late, "the file is hashed")
    part = await shared.part("file.bin", DATA, overwrite=True)
    await fill(part, DATA)
    row = await part.commit()
    monkeypatch.undo()
    await real(late)  # type: ignore[arg-type]
    assert shared.store.table.rows() == [row]
    assert await read_chunk(shared.store, CONTENT, 0) == chunk_of(DATA, 0)


async def test_a_part_that_is_damaged_altogether_has_no_row_any_more(opened: Opener) -> None:
    """Neighbour of a damaged part: all that is held is wrong, so that nothing is announced until a chunk is here."""
    async with opened.running() as first:
        part = await first.part("file.bin", DATA)
        await fill(part, DATA, [1])
        await part.close()
        part.files.data_path.write_bytes(bytes(len(DATA)))
        again = await first.part("file.bin", DATA)
        assert not again.held
        assert first.store.table.rows() == []
        await fill(again, DATA)
        await again.commit()
        await first.shares("file.bin", DATA)


async def test_a_chunk_of_a_broken_upload_reserves_no_more_than_itself(opened: Opener) -> None:
    """While it is written its whole size is reserved; once it is idle nothing is, over a restart too."""
    async with opened.running(capacity_bytes=4 * MIB) as first:
        part = await first.part("broken", DATA)
        await fill(part, DATA, [0])
        assert first.store.status().free_bytes == 4 * MIB - len(DATA)
        await part.close()
        assert first.store.status().free_bytes == 4 * MIB
    second = await opened(capacity_bytes=4 * MIB)
    assert second.store.status().free_bytes == 4 * MIB
    assert second.store.folder.space.unused_bytes == 4 * MIB - len(chunk_of(DATA, 0))


async def test_the_oldest_idle_parts_go_when_space_is_needed(opened: Opener) -> None:
    """As many as are needed; what is being written stays, and a part that does not fit even so deletes none."""
    shared = await opened(capacity_bytes=5 * MIB)
    for age, name in enumerate(("newest", "older", "oldest")):
        part = await shared.part(name, DATA)
        await fill(part, DATA, [1, 2, 3, 4])
        await part.close()
        last_used = shared.store.folder.clock.wall() - age
        os.utime(part.files.data_path.with_suffix(".held"), (last_used, last_used))
    with pytest.raises(NoSpaceError):
        await shared.part("too large", noise(5 * MIB + 1))
    assert len(shared.store.table.rows()) == 3
    large = noise(3 * MIB + MIB // 2 + 5)
    part = await shared.part("large", large)
    assert {row.key.name for row in shared.store.table.rows()} == {"newest"}
    await fill(part, large)
    await part.commit()
    await shared.shares("large", large)
