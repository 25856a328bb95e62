"""The index of digests."""

import shutil
import sqlite3
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from minga_core.chunks import MIN_CHUNK_BYTES
from minga_core.clock import SystemClock
from minga_core.errors import StorageError
from minga_core.names import Name
from minga_core.records import Published, RowKey
from minga_engine.parts.files import Fingerprint
from minga_peer.share import index_file, unwritten
from minga_peer.share.conditions import Conditions, Kind
from minga_peer.share.index import Index
from minga_peer.share.index_file import IndexFile
from minga_peer.share.indexed_file import IndexedFile
from minga_peer.share.manifest_cache import ManifestCache

from .conftest import manifest_of, noise

DATA = noise(300_000)
MANIFEST = manifest_of(DATA)
FILE = IndexedFile(
    Name("a/b"), "a/b", Fingerprint(300_000, 17, 18, (1 << 64) - 1, 1 << 63, executable=True), MANIFEST.content_id, 99
)


def other_named(name: str) -> IndexedFile:
    """OTHER under another name."""
    return IndexedFile(Name(name), name, OTHER.fingerprint, OTHER.content_id, OTHER.published_ns)


@asynccontextmanager
async def indexed(path: Path, known: bool = True) -> AsyncIterator[Index]:
    """An open index; known: whether it must know the file already."""
    index = Index(path, Conditions(SystemClock()))
    try:
        assert await index.open() == ({FILE.name: FILE} if known else {})
        yield index
    finally:
        await index.aclose()


@asynccontextmanager
async def indexed_in_memory(path: Path) -> AsyncIterator[Index]:
    """An open index that the disk refuses."""
    index = Index(path, Conditions(SystemClock()))
    await index.open()
    assert index.in_memory
    try:
        yield index
    finally:
        await index.aclose()


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    """The path of an index that knows one file."""
    async with indexed(tmp_path / "index", known=False) as index:
        await index.write([(FILE, MANIFEST)])
    return tmp_path / "index"


async def test_an_index_opened_again_has_all_fields_and_manifests_of_listed_files_alone(path: Path) -> None:
    """Also inodes above 2^63. A manifest of no file goes with the next opening."""
    async with indexed(path) as index:
        assert await index.manifest(FILE) == MANIFEST
        await index.write(remove=[FILE.name])
    async with indexed(path, known=False) as index:
        assert await index.manifest(FILE) is None


def spoil(path: Path, damage: str) -> None:
    if damage == "noise":
        path.write_bytes(noise(8192))
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:5000])
    else:
        statements = {
            "other schema": "ALTER TABLE files RENAME COLUMN mtime TO changed",
            "newer version": "PRAGMA user_version = 9",
            "bad row": "UPDATE files SET content = x'00'",
        }
        with closing(sqlite3.connect(path)) as database, database:
            database.execute(statements[damage])


@pytest.mark.parametrize("damage", ["noise", "truncated", "other schema", "newer version", "bad row"])
async def test_a_damaged_index_is_set_aside_and_made_anew(path: Path, damage: str) -> None:
    """It is a cache: the files are hashed again, and the old one is kept for inspection."""
    spoil(path, damage)
    async with indexed(path, known=False) as index:
        await index.write([(FILE, MANIFEST)])
        assert await index.manifest(FILE) == MANIFEST
    assert path.with_suffix(".broken").exists()


def block(path: Path) -> list[Path]:
    """Put something in the way of a file that SQLite needs beside the index; all that is in the folder then."""
    path.with_name(path.name + "-shm").mkdir()
    return sorted(path.parent.iterdir())


async def test_an_index_that_the_disk_refuses_is_in_memory_and_not_set_aside(path: Path) -> None:
    """What cannot be opened is not therefore damaged: it goes on with what the file has."""
    block(path)
    for _ in range(2):
        async with indexed(path) as index:
            await index.write(remove=[FILE.name])
            assert await index.names_after("", 1) == []


async def test_an_index_that_the_disk_refuses_after_a_crash_has_what_its_log_has(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is written beside it. Where there is no room for a copy either, it is empty."""
    crashed = path.with_name("crashed")
    async with indexed(path) as index:
        await index.set_published([FILE.published(Published(7))])
        for suffix in ("", "-wal"):
            shutil.copyfile(f"{path}{suffix}", f"{crashed}{suffix}")
    before = block(crashed)
    index = Index(crashed, Conditions(SystemClock()))
    assert [file.published_ns for file in (await index.open()).values()] == [7]
    await index.aclose()
    assert sorted(path.parent.iterdir()) == before
    monkeypatch.setattr(tempfile, "tempdir", str(path))
    async with indexed(crashed, known=False) as empty:
        assert empty.in_memory


async def test_an_index_that_is_no_file_is_in_memory(tmp_path: Path) -> None:
    """As in a state folder that is not there."""
    (tmp_path / "index").mkdir()
    async with indexed(tmp_path / "index", known=False) as index:
        await index.write([(FILE, MANIFEST)])
        assert await index.names_after("", 1) == [FILE.name]
    async with indexed(tmp_path / "missing" / "index", known=False):
        pass


async def test_a_manifest_that_fails_its_digest_is_not_served(path: Path) -> None:
    """A flipped bit in the index."""
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE manifests SET manifest = substr(manifest, 1, 40) || x'00' || substr(manifest, 42)")
    async with indexed(path) as index:
        assert await index.manifest(FILE) is None


@pytest.mark.parametrize("data", [b"", b"x", noise(MIN_CHUNK_BYTES)], ids=["empty", "a byte", "a whole chunk"])
async def test_the_manifest_of_one_chunk_is_kept_with_its_file(path: Path, data: bytes) -> None:
    """It is there after a restart, by name and by fingerprint, and is gone with its file; not that of another content
    that the name had before."""
    manifest = manifest_of(data)
    file = IndexedFile(Name("one"), "one", Fingerprint(len(data), 1, 2, 3, 4), manifest.content_id, 5)
    async with indexed(path) as index:
        await index.write([(file, manifest)])
        assert await index.manifest(FILE) == MANIFEST
    again = Index(path, Conditions(SystemClock()))
    assert file in (await again.open()).values()
    assert await again.manifest(file) == manifest
    found = await again.with_fingerprints([file.fingerprint, FILE.fingerprint])
    assert {name: each for name, _, _, each in found} == {file.name: manifest, FILE.name: MANIFEST}
    await again.write(remove=[file.name])
    await again.aclose()
    async with indexed(path) as index:
        assert await index.manifest(file) is None


async def test_a_digest_that_is_not_that_of_the_content_is_not_served(path: Path) -> None:
    """A flipped bit in the index, of a content of one chunk."""
    manifest = manifest_of(b"x")
    file = IndexedFile(FILE.name, FILE.path, Fingerprint(1, 1, 2, 3, 4), manifest.content_id, 5)
    index = Index(path, Conditions(SystemClock()))
    await index.open()
    await index.write([(file, manifest)])
    await index.aclose()
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE files SET digest = x'00' || substr(digest, 2)")
    again = Index(path, Conditions(SystemClock()))
    await again.open()
    assert await again.manifest(file) is None
    await again.aclose()


async def test_an_index_that_cannot_be_written_raises_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is shared; it is hashed again after a restart. A download's manifest is served from memory."""

    def refuse(*arguments: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(index_file, "_apply", refuse)
    other = manifest_of(DATA[:-1])
    file = IndexedFile(Name("c"), "c", Fingerprint(299_999, 17, 18, 1, 1), other.content_id, 99)
    async with indexed(path) as index:
        await index.write([(file, other)], cached=True)
        assert await index.manifest(file) == other


def full(*arguments: object, **keywords: object) -> None:
    """What SQLite does on a full disk."""
    raise sqlite3.OperationalError("database or disk is full")


OTHER_MANIFEST = manifest_of(DATA[:-1])
OTHER = IndexedFile(Name("c"), "c", Fingerprint(299_999, 17, 18, 1, 1), OTHER_MANIFEST.content_id, 0)


async def test_what_a_full_disk_refused_is_written_once_there_is_room(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """New entries, times of publication and removals, each as it was last; without another change. Until then it is a
    condition."""
    conditions = Conditions(SystemClock())
    index = Index(path, conditions)
    await index.open()
    with monkeypatch.context() as disk:
        disk.setattr(IndexFile, "write", full)
        await index.write([(OTHER, OTHER_MANIFEST)])
        await index.set_published([OTHER.published(Published(7)), FILE.published(Published(8))])
        await index.write([(other_named("d"), OTHER_MANIFEST)])
        await index.write(remove=[Name("d")])
        await index.set_complete()
        await index.write_again()
    assert (conditions.count(Kind.INDEX), index.is_behind) == (1, True)
    await index.write_again()
    assert (conditions.count(Kind.INDEX), index.is_behind) == (0, False)
    # Killed: it is not closed.
    again = Index(path, conditions)
    known = await again.open()
    assert {name: file.published_ns for name, file in known.items()} == {FILE.name: 8, OTHER.name: 7}
    assert (again.complete, await again.manifest(OTHER)) == (True, OTHER_MANIFEST)
    await again.aclose()
    await index.aclose()


async def test_what_a_full_disk_refused_is_written_with_the_next_change(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than one transaction takes."""
    monkeypatch.setattr(unwritten, "BATCH_CHANGES", 2)
    some = [other_named(f"c{number}") for number in range(7)]
    async with indexed(path) as index:
        with monkeypatch.context() as disk:
            disk.setattr(IndexFile, "write", full)
            await index.write([(file, OTHER_MANIFEST) for file in some])
        await index.write(remove=[FILE.name])
        assert await index.names_after("", 10) == [file.name for file in some]


async def test_an_index_in_memory_returns_to_the_disk_with_all_that_it_has(path: Path) -> None:
    """Once the disk lets it; what it did not load of the file stays there."""
    (blocked := path.with_name(path.name + "-shm")).mkdir()
    conditions = Conditions(SystemClock())
    index = Index(path, conditions)
    await index.open()
    await index.write([(OTHER, OTHER_MANIFEST)])
    await index.set_published([OTHER.published(Published(7))])
    await index.set_complete()
    await index.write_again()
    assert (conditions.count(Kind.INDEX), index.in_memory) == (1, True)
    blocked.rmdir()
    await index.write_again()
    assert (conditions.count(Kind.INDEX), index.in_memory) == (0, False)
    await index.write([(other_named("later"), OTHER_MANIFEST)])
    again = Index(path, conditions)
    known = await again.open()
    assert {name: file.published_ns for name, file in known.items()} == {FILE.name: 99, OTHER.name: 7, "later": 0}
    assert (again.complete, await again.manifest(OTHER)) == (True, OTHER_MANIFEST)
    await again.aclose()
    await index.aclose()


async def test_files_that_are_being_put_in_place_are_known_after_a_crash_until_they_have_entries(path: Path) -> None:
    """Those that were not put in place are forgotten after the first scan. Where nothing can be kept, that is said."""
    placed, broken_off = RowKey(OTHER.name, OTHER.content_id), RowKey(Name("b"), OTHER.content_id)
    async with indexed(path) as index:
        await index.intend({placed: Published(7, b"tag"), broken_off: Published(8)})
    async with indexed(path) as index:
        assert index.intents == {placed: Published(7, b"tag"), broken_off: Published(8)}
        await index.write([(OTHER, OTHER_MANIFEST)])
    again = Index(path, Conditions(SystemClock()))
    await again.open()
    assert again.intents == {broken_off: Published(8)}
    await again.forget_intents()
    await again.aclose()
    last = Index(path, Conditions(SystemClock()))
    await last.open()
    assert last.intents == {}
    await last.aclose()
    path.with_name(path.name + "-shm").mkdir()
    async with indexed_in_memory(path) as index:
        with pytest.raises(StorageError, match="cannot be written"):
            await index.intend({placed: Published(7)})


def test_what_is_not_written_is_bounded() -> None:
    """The oldest changes are forgotten, and counted."""
    waiting = unwritten.Unwritten(max_bytes=4 * (512 + len(OTHER_MANIFEST.digests)))
    waiting.put((other_named(f"c{number % 4}"), OTHER_MANIFEST) for number in range(100))
    assert (len(waiting), waiting.forgotten_count) == (4, 0)
    waiting.put([(other_named("more"), OTHER_MANIFEST)])
    assert [change.name for change in waiting.batch()] == ["c1", "c2", "c3", "more"]
    assert waiting.forgotten_count == 1


def test_cached_manifests_are_bounded_by_bytes() -> None:
    """The least recently used goes first; the one just added is always kept."""
    cache = ManifestCache(max_bytes=3000)
    manifests = [manifest_of(noise(1 << 20, seed=number)) for number in range(6)]
    for manifest in manifests:
        cache.put(manifest.content_id, manifest)
        cache.get(manifests[0].content_id)
    kept = [number for number, manifest in enumerate(manifests) if cache.get(manifest.content_id)]
    assert kept in ([0, 3, 4, 5], [0, 4, 5])
    huge = manifest_of(bytes(30 << 20))
    cache.put(huge.content_id, huge)
    assert cache.get(huge.content_id) == huge
