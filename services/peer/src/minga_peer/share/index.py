"""The index of digests: path and fingerprint → content, so that a restart hashes nothing again.

One SQLite file in WAL mode, used from one thread. It is a cache of what the disk says: a file that SQLite refuses is
set aside and built anew.
"""

import logging
import sqlite3
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

from minga_core.errors import MingaError, StorageError
from minga_core.ids import ContentId
from minga_core.manifest import Manifest
from minga_core.names import Name
from minga_engine.parts.disk import run_to_end
from minga_engine.parts.files import Fingerprint
from minga_peer.share.conditions import Conditions, Kind
from minga_peer.share.manifest_cache import ManifestCache
from minga_runtime.logs import log_event

log = logging.getLogger(__name__)

_SCHEMA = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = NORMAL;
PRAGMA user_version = 3;
CREATE TABLE IF NOT EXISTS files (
  name TEXT PRIMARY KEY, path TEXT NOT NULL, size INTEGER NOT NULL, mtime INTEGER NOT NULL, inode INTEGER NOT NULL,
  device INTEGER NOT NULL, content BLOB NOT NULL, published INTEGER NOT NULL, ctime INTEGER NOT NULL,
  executable INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS manifests (content BLOB PRIMARY KEY, manifest BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS complete (complete INTEGER PRIMARY KEY);
CREATE INDEX IF NOT EXISTS files_by_inode ON files (inode);
DELETE FROM manifests WHERE content NOT IN (SELECT content FROM files);
"""

_VERSION = 3
_DISK_CODES = (
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
)
"""Errors of the disk: the index itself may be intact, and must not be set aside for them."""
SET_ASIDE = "set aside"
"""Key of the condition that lasts until a damaged index has everything again."""
IN_MEMORY = "in memory"
"""Key of the condition that lasts until a restart, when the disk did not let the index be opened."""


@dataclass(frozen=True, slots=True)
class IndexedFile:
    """A file whose digests are known, as long as it has this fingerprint."""

    name: Name
    path: str
    fingerprint: Fingerprint
    content_id: ContentId
    published_ns: int = field(compare=False)
    """See FileRow. The file stays the same one when it is published."""


class Index:
    """The index. Its coroutines end only when their work in the index's thread has."""

    def __init__(self, path: Path, conditions: Conditions) -> None:
        self._path = path
        self._conditions = conditions
        self._database: sqlite3.Connection | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="minga-index")
        self._cache = ManifestCache()
        self.complete = False
        """Whether all files that were there when the index was made have been in it: others are new then."""
        self._set_aside_for = ""
        self._in_memory_for = ""

    async def open(self) -> dict[Name, IndexedFile]:
        """Open or make the index; the files it knows. A damaged one is set aside and made anew.

        Where the disk does not let it be opened, being full or read-only, it is kept in memory.
        """
        known = await run_to_end(self._thread, self._open_or_make)
        if self._set_aside_for:
            self._conditions.set(Kind.INDEX, f"{self._path} was damaged: {self._set_aside_for}", SET_ASIDE)
        if self._in_memory_for:
            why = f"{self._path} cannot be opened, its changes are in memory: {self._in_memory_for}"
            self._conditions.set(Kind.INDEX, why, IN_MEMORY)
        return known

    def made_anew(self) -> None:
        """Note that all files are in the index (again)."""
        self._conditions.clear(Kind.INDEX, SET_ASIDE)

    async def write(
        self, put: Sequence[tuple[IndexedFile, Manifest]] = (), remove: Iterable[Name] = (), *, cached: bool = False
    ) -> None:
        """Add files and remove names, in one transaction. cached: keep the manifests in memory too.

        An error is a condition: without an entry the file is hashed again after a restart, and nothing is lost.
        """
        problem = await run_to_end(self._thread, self._write, put, remove)
        # What is not written is served from the cache.
        for file, manifest in put if cached or problem else ():
            self._cache.put(file.content_id, manifest)
        if problem:
            self._conditions.set(Kind.INDEX, f"{self._path} cannot be written: {problem}")
        else:
            self._conditions.clear(Kind.INDEX)

    async def set_published(self, files: Sequence[IndexedFile]) -> None:
        """Keep when files were published, in one transaction; those that are not in the index as they are stay out.

        Errors are logged: the registry is asked again after a restart.
        """
        await run_to_end(self._thread, self._set_published, files)

    async def set_complete(self) -> None:
        """Note that all files that were there when the index was made have been in it. Errors are logged."""
        self.complete = True
        await run_to_end(self._thread, self._set_complete)

    async def manifest(self, content_id: ContentId) -> Manifest | None:
        """The manifest of a content; None when it is not known or fails its digest."""
        manifest = self._cache.get(content_id)
        if manifest is None:
            manifest = await run_to_end(self._thread, self._read, content_id)
            if manifest is not None:
                self._cache.put(content_id, manifest)
        return manifest

    async def names_after(self, name: str, limit: int) -> list[Name]:
        """The next names of the index in order of their bytes, at most `limit`; none at the end, or on an error."""
        return await run_to_end(self._thread, self._names_after, name, limit)

    async def with_fingerprints(
        self, fingerprints: Sequence[Fingerprint]
    ) -> list[tuple[Name, Fingerprint, ContentId, Manifest]]:
        """What the index has, under whatever names, for files of those fingerprints; nothing on an error."""
        return await run_to_end(self._thread, self._with_fingerprints, fingerprints)

    async def aclose(self) -> None:
        """Close the file and end the thread. Idempotent."""
        await run_to_end(self._thread, self._close)
        self._thread.shutdown(wait=False)

    def _open_or_make(self) -> dict[Name, IndexedFile]:
        try:
            return self._load(self._connect(self._path))
        except (sqlite3.Error, MingaError) as error:
            if isinstance(error, sqlite3.Error) and error.sqlite_errorcode & 0xFF in _DISK_CODES:
                return self._load_in_memory(error)
            self._set_aside(error)
        try:
            return self._load(self._connect(self._path))
        except sqlite3.Error as error:
            return self._load_in_memory(error)

    def _load_in_memory(self, error: sqlite3.Error) -> dict[Name, IndexedFile]:
        """Go on in memory with what the file had, where that can be read."""
        self._in_memory_for = str(error)
        try:
            return self._load(self._copied_to_memory())
        except (sqlite3.Error, MingaError):
            return self._load(self._connect(":memory:"))

    def _copied_to_memory(self) -> sqlite3.Connection:
        """Copy the index as it was last closed; empty after a crash, when its log is to be read too, which writes."""
        memory = self._connect(":memory:")
        log_path = Path(f"{self._path}-wal")
        if self._path.exists() and not (log_path.exists() and log_path.stat().st_size):
            with closing(sqlite3.connect(f"{self._path.as_uri()}?mode=ro&immutable=1", uri=True)) as kept:
                kept.backup(memory)
        return memory

    def _connect(self, path: Path | str) -> sqlite3.Connection:
        """A connection in place of the one before, which is closed. path: of a file, or `:memory:`."""
        self._close()
        self._database = sqlite3.connect(path, check_same_thread=False)
        return self._database

    def _load(self, database: sqlite3.Connection) -> dict[Name, IndexedFile]:
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if version == 1:
            # It lacks one time of each file: all are hashed again, and keep when they were published.
            database.execute("ALTER TABLE files ADD COLUMN ctime INTEGER NOT NULL DEFAULT -1")
        if version in (1, 2):
            # Those that are executable are hashed again.
            database.execute("ALTER TABLE files ADD COLUMN executable INTEGER NOT NULL DEFAULT 0")
        elif version not in (0, _VERSION):
            raise StorageError(f"it has version {version}, not {_VERSION}")
        database.executescript(_SCHEMA)
        if version in (1, 2):
            # It had no such note: what it lacks was made while the peer was away.
            self._set_complete()
        self.complete = database.execute("SELECT 1 FROM complete").fetchone() is not None
        rows = database.execute(
            "SELECT name, path, size, mtime, inode, device, content, published, ctime, executable FROM files"
        )
        return {
            Name(name): IndexedFile(
                Name(name),
                # Nearly always the same: kept once.
                name if path == name else path,
                Fingerprint(size, mtime, ctime, _unsigned(inode), _unsigned(device), bool(executable)),
                ContentId(content),
                published,
            )
            for name, path, size, mtime, inode, device, content, published, ctime, executable in rows
        }

    def _set_aside(self, error: Exception) -> None:
        self._set_aside_for = str(error)
        self._close()
        for suffix in ("-wal", "-shm"):
            Path(f"{self._path}{suffix}").unlink(missing_ok=True)
        # When it cannot be moved, opening it again raises the reason.
        with suppress(OSError):
            self._path.replace(self._path.with_suffix(".broken"))

    def _write(self, put: Iterable[tuple[IndexedFile, Manifest]], remove: Iterable[Name]) -> str:
        """What went wrong; empty when nothing did."""
        try:
            with self._opened() as database:
                database.executemany("DELETE FROM files WHERE name = ?", ((name,) for name in remove))
                for file, manifest in put:
                    self._put(database, file, manifest)
        except sqlite3.Error as error:
            return str(error)
        return ""

    def _set_published(self, files: Iterable[IndexedFile]) -> None:
        times = ((file.published_ns, file.name, file.content_id.raw) for file in files)
        self._execute("UPDATE files SET published = ? WHERE name = ? AND content = ?", times)

    def _set_complete(self) -> None:
        self._execute("INSERT OR REPLACE INTO complete VALUES (?)", [(1,)])

    def _execute(self, statement: str, parameters: Iterable[tuple[object, ...]]) -> None:
        try:
            with self._opened() as database:
                database.executemany(statement, parameters)
        except sqlite3.Error as error:
            log_event(log, logging.WARNING, "index_not_written", path=self._path, error=error)

    @staticmethod
    def _put(database: sqlite3.Connection, file: IndexedFile, manifest: Manifest) -> None:
        fingerprint = file.fingerprint
        database.execute(
            "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                file.name,
                file.path,
                fingerprint.size_bytes,
                fingerprint.modified_ns,
                _signed(fingerprint.inode),
                _signed(fingerprint.device),
                file.content_id.raw,
                file.published_ns,
                fingerprint.changed_ns,
                fingerprint.executable,
            ),
        )
        database.execute("INSERT OR REPLACE INTO manifests VALUES (?, ?)", (file.content_id.raw, manifest.encode()))

    def _read(self, content_id: ContentId) -> Manifest | None:
        query = "SELECT manifest FROM manifests WHERE content = ?"
        try:
            row = self._opened().execute(query, (content_id.raw,)).fetchone()
            return None if row is None else Manifest.decode(row[0], expected=content_id)
        except (sqlite3.Error, MingaError) as error:
            log_event(log, logging.WARNING, "index_not_read", path=self._path, error=error)
            return None

    def _names_after(self, name: str, limit: int) -> list[Name]:
        query = "SELECT name FROM files WHERE name > ? ORDER BY name LIMIT ?"
        try:
            return [Name(row[0]) for row in self._opened().execute(query, (name, limit)).fetchall()]
        except sqlite3.Error as error:
            log_event(log, logging.WARNING, "index_not_read", path=self._path, error=error)
            return []

    def _with_fingerprints(self, wanted: Sequence[Fingerprint]) -> list[tuple[Name, Fingerprint, ContentId, Manifest]]:
        query = (
            "SELECT name, device, content, manifest FROM files JOIN manifests USING (content) "
            "WHERE inode = ? AND ctime = ? AND mtime = ? AND size = ?"
        )
        found: list[tuple[Name, Fingerprint, ContentId, Manifest]] = []
        try:
            for each in wanted:
                key = (_signed(each.inode), each.changed_ns, each.modified_ns, each.size_bytes)
                for name, device, content, manifest in self._opened().execute(query, key):
                    if _unsigned(device) == each.device:
                        content_id = ContentId(content)
                        found.append((Name(name), each, content_id, Manifest.decode(manifest, expected=content_id)))
        except (sqlite3.Error, MingaError) as error:
            log_event(log, logging.WARNING, "index_not_read", path=self._path, error=error)
        return found

    def _close(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None

    def _opened(self) -> sqlite3.Connection:
        if self._database is None:
            raise RuntimeError("the index is not open")
        return self._database


def _signed(number: int) -> int:
    """An unsigned 64-bit number as SQLite keeps it; some file systems hand out inodes above 2^63."""
    return number - (1 << 64) if number >= 1 << 63 else number


def _unsigned(number: int) -> int:
    return number % (1 << 64)
