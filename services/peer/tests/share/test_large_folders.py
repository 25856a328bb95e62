"""Very many files: work in proportion to what has changed. Counted, not timed."""

from pathlib import Path

from minga_core.clock import SystemClock
from minga_core.names import Name
from minga_engine.parts.files import Fingerprint
from minga_engine.parts.hashing import RANGE_BYTES
from minga_peer.share.hash_queue import BATCH_BYTES, BATCH_FILES, _Waiting
from minga_peer.share.root import FoundFile
from minga_peer.share.store import ContentStore, StoreSettings

from .conftest import Opener, Shared, noise

FILES = 20


async def test_a_folder_that_is_renamed_is_not_hashed_again(opened: Opener) -> None:
    """Large files and small ones, while the peer runs and while it does not; a known name with other files too."""
    files = {f"{number}.bin": b"%d" % number for number in range(FILES)} | {"large.bin": noise(RANGE_BYTES + 1)}
    async with opened.running() as shared:
        await _drop(shared, "a", files)
        await _drop(shared, "b", {"1.bin": b"other"})
        hashed = shared.metrics.misses
        (opened.root / "a").rename(opened.root / "c")
        await _shares(shared, "c", files)
        (opened.root / "b").rename(opened.root / "a")
        await _shares(shared, "a", {"1.bin": b"other"})
        assert shared.content("a/2.bin") is None
        assert shared.metrics.misses == hashed
    (opened.root / "c").rename(opened.root / "d")
    async with opened.running() as shared:
        await _shares(shared, "d", files)
        assert shared.metrics.misses == 0


async def test_a_file_that_may_have_other_bytes_is_hashed_under_a_new_name_too(opened: Opener) -> None:
    """What is known of it under the old one is what may be wrong."""
    async with opened.running() as shared:
        await _drop(shared, "a", {"x": b"before"})
        hashed = shared.metrics.misses
        file = shared.store.inventory.files[Name("a/x")]
        (opened.root / "a").rename(opened.root / "b")
        shared.store.files.hash_again(file)
        await _shares(shared, "b", {"x": b"before"})
        assert shared.metrics.misses == hashed + 1


def test_waiting_files_are_not_looked_at_one_by_one_for_each_that_is_hashed() -> None:
    """A hundred thousand new files would be compared with each other's times ten billion times."""
    waiting = _Waiting()
    for number in range(2_000):
        name = Name(_CountedName(number))
        waiting.put(FoundFile(name, f"{number}", Fingerprint(1, 0, 0, number, 0)), number % 7 + 1)
    _CountedName.looked_up = 0
    for _ in range(1_000):
        assert waiting.take(0.0, BATCH_FILES, BATCH_BYTES) == []
        assert waiting.next_due() == 1
    assert _CountedName.looked_up < 10_000
    taken = [found.name for _ in range(4) for found in waiting.take(9.0, BATCH_FILES, BATCH_BYTES)]
    assert len(set(taken)) == 2_000
    assert [int(name) % 7 for name in taken] == sorted(int(name) % 7 for name in taken)
    assert waiting.next_due() is None


async def test_a_scan_keeps_files_that_wait_to_be_hashed_once(tmp_path: Path) -> None:
    """1. Nothing is hashed. 2. Another scan finds the same object. 3. A file that has changed meanwhile is another."""
    store = await ContentStore.open(StoreSettings(tmp_path), SystemClock())
    try:
        (tmp_path / "a").write_bytes(b"1")
        comparer, name = store.sync._comparer, Name("a")
        first = await comparer.scan()
        await comparer.compare(first)
        assert (await comparer.scan()).files[name] is first.files[name]
        (tmp_path / "a").write_bytes(b"12")
        assert (await comparer.scan()).files[name].fingerprint.size_bytes == 2
    finally:
        await store.aclose()


class _CountedName(str):
    """Counts how often it is looked up in a dictionary."""

    __slots__ = ()
    looked_up = 0

    def __hash__(self) -> int:
        _CountedName.looked_up += 1
        return super().__hash__()


async def _drop(shared: Shared, folder: str, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        shared.drop(f"{folder}/{name}", data)
    await _shares(shared, folder, files)


async def _shares(shared: Shared, folder: str, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        await shared.shares(f"{folder}/{name}", data)
