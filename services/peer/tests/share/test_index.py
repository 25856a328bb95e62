"""The index of digests."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from minga_core.clock import SystemClock
from minga_core.names import Name
from minga_engine.parts.files import Fingerprint
from minga_peer.share.conditions import Conditions
from minga_peer.share.index import Index, IndexedFile
from minga_peer.share.manifest_cache import ManifestCache

from .conftest import manifest_of, noise

DATA = noise(300_000)
MANIFEST = manifest_of(DATA)
FILE = IndexedFile(
    Name("a/b"), "a/b", Fingerprint(300_000, 17, 18, (1 << 64) - 1, 1 << 63, executable=True), MANIFEST.content_id, 99
)


@asynccontextmanager
async def indexed(path: Path, known: bool = True) -> AsyncIterator[Index]:
    """An open index; known: whether it must know the file already."""
    index = Index(path, Conditions(SystemClock()))
    try:
        assert await index.open() == ({FILE.name: FILE} if known else {})
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
        assert await index.manifest(FILE.content_id) == MANIFEST
        await index.write(remove=[FILE.name])
    async with indexed(path, known=False) as index:
        assert await index.manifest(FILE.content_id) is None


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
        assert await index.manifest(FILE.content_id) == MANIFEST
    assert path.with_suffix(".broken").exists()


def _spoil_beside(path: Path, suffix: str) -> bytes:
    """Put something in the way of a file that SQLite needs beside the index; what the index has."""
    beside = Path(path.with_name(path.name + suffix))
    if suffix == "-shm":
        beside.mkdir()
    else:
        beside.write_bytes(b"a process was killed")
    return path.read_bytes()


async def test_an_index_that_the_disk_refuses_is_in_memory_and_not_set_aside(path: Path) -> None:
    """What cannot be opened is not therefore damaged: it goes on with what the file has."""
    before = _spoil_beside(path, "-shm")
    async with indexed(path) as index:
        await index.write(remove=[FILE.name])
        assert await index.names_after("", 1) == []
    assert _spoil_beside(path, "-wal") == before
    async with indexed(path, known=False) as index:
        await index.write([(FILE, MANIFEST)])
        assert await index.manifest(FILE.content_id) == MANIFEST


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
        assert await index.manifest(FILE.content_id) is None


async def test_an_index_that_cannot_be_written_raises_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is shared; it is hashed again after a restart. A download's manifest is served from memory."""

    def refuse(*arguments: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(Index, "_put", refuse)
    other = manifest_of(DATA[:-1])
    file = IndexedFile(Name("c"), "c", Fingerprint(299_999, 17, 18, 1, 1), other.content_id, 99)
    async with indexed(path) as index:
        await index.write([(file, other)], cached=True)
        assert await index.manifest(other.content_id) == other


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
