"""The shared folder becomes rows: found, hashed, changed, gone."""

import asyncio
import errno
import fcntl
import gc
import os
import stat
import threading
import time
import unicodedata
from pathlib import Path

import pytest

from minga_core.clock import ManualClock
from minga_core.errors import AlreadyRunningError, StorageError
from minga_core.names import parse_name
from minga_core.records import PUBLISH, HoldingState, publish_as_of
from minga_engine.parts import hashing as hasher
from minga_peer.share import hash_queue
from minga_peer.share.store import ContentStore, StoreSettings

from .conftest import SETTLE_SECONDS, Opener, eventually, manifest_of, noise, open_files, read_chunk

KIB, MIB = 1024, 1024 * 1024
NFC, NFD = unicodedata.normalize("NFC", "é🎉.bin"), unicodedata.normalize("NFD", "é🎉.bin")


async def test_files_that_are_there_are_shared(opened: Opener) -> None:
    """With content, size and time, empty ones too; our own state is not."""
    opened.root.mkdir()
    (opened.root / "folder").mkdir()
    (opened.root / "folder/a").write_bytes(noise(MIB))
    (opened.root / "empty").write_bytes(b"")
    shared = await opened()
    row = await shared.shares("folder/a", noise(MIB))
    assert (row.size_bytes, row.state) == (MIB, HoldingState.COMPLETE)
    assert row.modified_ns == (opened.root / "folder/a").stat().st_mtime_ns
    assert (await shared.shares("empty", b"")).size_bytes == 0
    assert {row.key.name for row in shared.store.table.rows()} == {"folder/a", "empty"}
    await eventually(lambda: not shared.store.status().pending_hash_count, "the index has noted that all is in it")
    status = shared.store.status()
    assert (status.file_count, status.shared_bytes) == (2, MIB)


async def test_a_file_that_is_dropped_in_is_shared_without_a_scan(opened: Opener) -> None:
    """Also in a folder that was made for it a moment ago."""
    shared = await opened()
    shared.drop("a", b"one")
    await shared.shares("a", b"one")
    shared.drop("new/folder/b", b"two")
    await shared.shares("new/folder/b", b"two")


async def test_a_file_that_changes_is_hashed_again(opened: Opener) -> None:
    """The old content's row goes, and the new one is to be published."""
    shared = await opened()
    path = shared.drop("a", b"one")
    await shared.published("a", b"one", 77)
    path.write_bytes(b"two!")
    new = await shared.shares("a", b"two!")
    assert new.published_ns == PUBLISH
    assert [row.key for row in shared.store.table.rows()] == [new.key]


async def test_files_that_go_are_unlisted(opened: Opener) -> None:
    """One by one, by folder, and by moving the folder away; a moved one comes under its new name."""
    shared = await opened()
    for name in ("a", "b/c", "b/d/e", "f/g"):
        shared.drop(name, name.encode())
        await shared.shares(name, name.encode())
    (shared.root / "a").unlink()
    await eventually(lambda: shared.content("a") is None, "a is not listed")
    (shared.root / "f").rename(shared.root / "h")
    await shared.shares("h/g", b"f/g")
    await eventually(lambda: shared.content("f/g") is None, "f/g is not listed")
    (shared.root / "b").rename(shared.root.parent / "away")
    await eventually(lambda: len(shared.store.table.rows()) == 1, "nothing in b is listed")


async def test_a_scan_finds_what_the_watch_missed(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """New, changed and gone files, with no watch at all."""

    async def nothing(*_: object):  # type: ignore[no-untyped-def]
        await asyncio.Event().wait()
        yield set()

    monkeypatch.setattr("minga_peer.share.folder_sync.changed_paths", nothing)
    opened.root.mkdir()
    (opened.root / "stays").write_bytes(b"1")
    (opened.root / "changes").write_bytes(b"2")
    (opened.root / "goes").write_bytes(b"3")
    shared = await opened()
    await shared.shares("changes", b"2")
    await shared.shares("goes", b"3")
    shared.drop("changes", b"22")
    (opened.root / "goes").unlink()
    shared.drop("comes", b"4")
    shared.store.sync.rescan()
    await shared.shares("changes", b"22")
    await shared.shares("comes", b"4")
    assert {row.key.name for row in shared.store.table.rows()} == {"stays", "changes", "comes"}


async def test_a_file_is_hashed_only_once_it_is_quiet(opened: Opener) -> None:
    """1. A clock that stands still, at the time of the last file. 2. That file waits, one that was written before is
    hashed. 3. It has been quiet, and is hashed."""
    opened.root.mkdir()
    (opened.root / "quiet").write_bytes(b"quiet")
    await asyncio.sleep(2 * SETTLE_SECONDS)
    (opened.root / "new").write_bytes(b"new")
    # A time in the future says nothing: it waits however long a busy machine takes until the scan.
    later = time.time() + 3600
    os.utime(opened.root / "new", (later, later))
    # What the kernel says: nobody sets the time of a change.
    clock = ManualClock(wall_seconds=(opened.root / "new").stat().st_ctime_ns / 1e9)
    shared = await opened(clock=clock)
    await shared.shares("quiet", b"quiet")
    await eventually(lambda: shared.store.status().pending_hash_count == 1, "one waits")
    assert shared.content("new") is None
    clock.advance(1.0)
    await shared.shares("new", b"new")


async def test_a_file_that_grows_while_hashed_is_hashed_again(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """No content that never was is ever announced."""
    shared = await opened()
    real, grown = os.preadv, asyncio.Event()

    def read(descriptor: int, buffers: list[memoryview], offset: int) -> int:
        count = real(descriptor, buffers, offset)
        if not grown.is_set():
            grown.set()
            with (shared.root / "a").open("ab") as file:
                file.write(b"more")
        return count

    monkeypatch.setattr(os, "preadv", read)
    shared.drop("a", noise(MIB))
    await shared.shares("a", noise(MIB) + b"more")
    announced = {row.key.content_id for change in shared.seen.changes for row in change.put}
    assert announced == {manifest_of(noise(MIB) + b"more").content_id}


async def test_a_restart_hashes_nothing_again(opened: Opener) -> None:
    """Rows are as they were, publishing times included."""
    async with opened.running() as first:
        for name in ("a", "b/c", NFD):
            first.drop(name, noise(300 * KIB, seed=len(name)))
            await first.published(name, noise(300 * KIB, seed=len(name)), 77)
        rows = {row.key: row for row in first.store.table.rows()}
        assert first.metrics.misses == 3
    second = await opened()
    assert {row.key: row for row in second.store.table.rows()} == rows
    assert (second.metrics.hits, second.metrics.misses, second.metrics.bytes_hashed) == (3, 0, 0)
    for key in rows:
        assert (await second.store.manifest(key.content_id)).content_id == key.content_id


async def test_a_change_while_stopped_is_noticed_at_the_start(opened: Opener) -> None:
    """The same content keeps its time of publication, another is to be published as of then."""
    async with opened.running() as first:
        first.drop("touched", b"same")
        first.drop("changed", b"old")
        first.drop("gone", b"gone")
        await first.published("touched", b"same", 77)
        await first.published("changed", b"old", 78)
        await first.shares("gone", b"gone")
    os.utime(opened.root / "touched", ns=(1, 1))
    (opened.root / "changed").write_bytes(b"new")
    (opened.root / "gone").unlink()
    second = await opened()
    assert (await second.shares("touched", b"same")).published_ns == 77
    changed_ns = (opened.root / "changed").stat().st_ctime_ns
    assert (await second.shares("changed", b"new")).published_ns == publish_as_of(changed_ns)
    assert second.content("gone") is None


async def test_one_folder_has_one_store(opened: Opener) -> None:
    """The second is refused while the first lives, and welcome afterwards."""
    async with opened.running() as first:
        with pytest.raises(AlreadyRunningError):
            await opened()
        first.drop("a", b"x")
        await first.shares("a", b"x")
    await opened()


async def test_two_state_folders_do_not_let_two_stores_share_one_folder(opened: Opener, tmp_path: Path) -> None:
    """Awkward from the field: two daemons with different --state-dir both started. Nor do two folders share a state."""
    async with opened.running(state_dir=tmp_path / "state"):
        with pytest.raises(AlreadyRunningError, match="shares"):
            await opened(state_dir=tmp_path / "other state")
        with pytest.raises(AlreadyRunningError, match="has its state in"):
            await opened(tmp_path / "other folder", state_dir=tmp_path / "state")
    await opened(state_dir=tmp_path / "other state")


async def test_a_folder_that_cannot_be_locked_is_shared_all_the_same(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NFS refuses an exclusive lock on what is not open for writing, as no folder is."""
    real = fcntl.flock

    def refuse(descriptor: int, operation: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EBADF, "Bad file descriptor")
        real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", refuse)
    shared = await opened()
    shared.drop("a", b"x")
    await shared.shares("a", b"x")
    with pytest.raises(AlreadyRunningError, match="has its state in"):
        await opened()


async def test_state_on_another_file_system_is_refused_at_the_start(opened: Opener, tmp_path: Path) -> None:
    """A part could not be moved into the folder in one step."""
    if os.stat("/dev/shm").st_dev == os.stat(tmp_path).st_dev:
        pytest.skip("/dev/shm is on the file system of the tests' folder")
    state = Path("/dev/shm") / f"minga-test-{os.getpid()}"
    try:
        with pytest.raises(StorageError, match="another file system"):
            await ContentStore.open(StoreSettings(opened.root, state_dir=state), ManualClock())
    finally:
        for path in sorted(state.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        state.rmdir()


async def test_what_cannot_be_shared_is_told_and_the_rest_is_shared(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Links, pipes, names that are no text, files that cannot be opened. Root may read all, so that is simulated."""
    opened.root.mkdir()
    real = os.open

    def refuse(path: str, *arguments: object, **options: object) -> int:
        if path == "locked":
            raise PermissionError(13, "Permission denied")
        return real(path, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", refuse)
    (opened.root / "locked").write_bytes(b"x")
    (opened.root / "link").symlink_to("/etc/hostname")
    os.mkfifo(opened.root / "pipe")
    (opened.root / os.fsdecode(b"\xff")).write_bytes(b"x")
    (opened.root / "good").write_bytes(b"x")
    shared = await opened()
    await shared.shares("good", b"x")
    await eventually(lambda: shared.problem("locked cannot be read: permission denied"), "the locked file is a problem")
    assert shared.problem("link is a symbolic link")
    assert shared.problem("pipe is a pipe")
    assert shared.problem("not valid UTF-8")
    assert [row.key.name for row in shared.store.table.rows()] == ["good"]


async def test_a_file_that_becomes_readable_is_shared_after_the_next_scan(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The problem goes with its reason."""
    shared = await opened()
    real = hash_queue.hash_descriptor

    def refuse(descriptor: int, what: str) -> object:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(hash_queue, "hash_descriptor", refuse)
    shared.drop("a", b"x")
    await eventually(lambda: shared.problem("a cannot be read: input/output error"), "the problem is shown")
    monkeypatch.setattr(hash_queue, "hash_descriptor", real)
    shared.store.sync.rescan()
    await shared.shares("a", b"x")
    await eventually(lambda: not shared.store.conditions.all(), "the problem is over")


async def test_the_normal_spelling_of_a_name_takes_over(opened: Opener) -> None:
    """1. A decomposed name is shared. 2. The normal one comes and wins. 3. It goes, and the other is shared again."""
    shared = await opened()
    shared.drop(NFD, b"decomposed")
    await shared.shares(NFC, b"decomposed")
    assert shared.store.path_of(parse_name(NFC)).name == NFD
    shared.drop(NFC, b"normal")
    await shared.shares(NFC, b"normal")
    shared.store.sync.rescan()
    await eventually(lambda: shared.problem("another Unicode form"), "the other is a problem")
    (shared.root / NFC).unlink()
    await shared.shares(NFC, b"decomposed")


async def test_a_flood_of_news_is_answered_by_a_scan(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """More paths than are remembered lose none of the files."""
    monkeypatch.setattr("minga_peer.share.folder_watcher.MAX_PATHS", 10)
    shared = await opened()
    shared.drop("first", b"x")
    await shared.shares("first", b"x")
    for number in range(300):
        shared.drop(f"f{number % 7}/{number}", b"x")
    await eventually(lambda: shared.store.status().file_count == 301, "all are shared")


async def test_a_watch_that_died_is_set_again(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """1. A name that is no text kills the watcher. 2. A file that came meanwhile is found all the same. 3. And one that
    comes later."""
    monkeypatch.setattr("minga_peer.share.folder_watcher.MIN_PAUSE_SECONDS", 0.05)
    shared = await opened()
    shared.drop("first", b"x")
    await shared.shares("first", b"x")
    (shared.root / os.fsdecode(b"\xff")).write_bytes(b"x")
    shared.drop("meanwhile", b"x")
    await shared.shares("meanwhile", b"x")
    shared.drop("later", b"y")
    await shared.shares("later", b"y")


async def test_large_files_do_not_keep_small_ones_waiting(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """1. Large files fill their lanes. 2. A small one comes and is shared first."""
    monkeypatch.setattr(hash_queue, "RANGE_BYTES", 256 * KIB)
    monkeypatch.setattr(hasher, "RANGE_BYTES", 256 * KIB)
    go, real = asyncio.Event(), hash_queue.hash_large

    async def slowly(*arguments: object) -> object:
        await go.wait()
        return await real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(hash_queue, "hash_large", slowly)
    shared = await opened(threads=1)
    for number in range(3):
        shared.drop(f"large{number}", noise(MIB, seed=number))
    await eventually(lambda: shared.store.status().pending_hash_count == 3, "they wait")
    shared.drop("small", b"x")
    await shared.shares("small", b"x")
    assert shared.store.status().file_count == 1
    go.set()
    for number in range(3):
        await shared.shares(f"large{number}", noise(MIB, seed=number))


async def test_stopping_leaves_no_task_thread_or_descriptor(opened: Opener) -> None:
    """As before the store was opened."""
    async with opened.running(opened.root.parent / "warm"):
        pass
    # The watcher's own thread closes its descriptors a moment after it was asked to end.
    await eventually(lambda: not any("inotify" in path for path in open_files()), "the first watcher has ended")
    # What earlier tests left to the garbage collector must not go in the middle of the count.
    gc.collect()
    tasks, descriptors = len(asyncio.all_tasks()), len(open_files())
    async with opened.running() as shared:
        shared.drop("a", noise(MIB))
        row = await shared.shares("a", noise(MIB))
        await read_chunk(shared.store, row.key.content_id, 0)
        part = await shared.part("b", b"new")
        await part.write_chunk(0, b"new")
    assert len(asyncio.all_tasks()) == tasks
    await eventually(lambda: len(open_files()) <= descriptors, "every descriptor is closed")
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("minga")]
