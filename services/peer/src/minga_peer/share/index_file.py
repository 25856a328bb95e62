"""The SQLite file of the index, in WAL mode. One that SQLite refuses as damaged is set aside and made anew.

::

    files       name → path, fingerprint, content, time of publication and its tag; the digest of a content of one chunk
    manifests   content → manifest, of contents of several chunks (up to version 4 of all)
    intents     name and content → time of publication and its tag, of files that are being put in place
    complete    a row once all files that were there when the index was made have been in it
"""

import logging
import shutil
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from itertools import chain, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from minga_core.errors import InvalidManifestError, MingaError, StorageError
from minga_core.ids import ContentId
from minga_core.manifest import Manifest
from minga_core.names import Name
from minga_core.records import Published, RowKey
from minga_engine.parts.files import Fingerprint
from minga_peer.share.indexed_file import IndexedFile
from minga_peer.share.unwritten import Change
from minga_runtime.logs import log_event

log = logging.getLogger(__name__)

T = TypeVar("T")
_Row = tuple[Any, ...]

_SCHEMA = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = NORMAL;
PRAGMA cache_size = -512;
PRAGMA user_version = 5;
CREATE TABLE IF NOT EXISTS files (
  name TEXT PRIMARY KEY, path TEXT NOT NULL, size INTEGER NOT NULL, mtime INTEGER NOT NULL, inode INTEGER NOT NULL,
  device INTEGER NOT NULL, content BLOB NOT NULL, published INTEGER NOT NULL, ctime INTEGER NOT NULL,
  executable INTEGER NOT NULL, tag BLOB NOT NULL DEFAULT x'', digest BLOB NOT NULL DEFAULT x''
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS manifests (content BLOB PRIMARY KEY, manifest BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS intents (
  name TEXT, content BLOB, published INTEGER NOT NULL, tag BLOB NOT NULL DEFAULT x'', PRIMARY KEY (name, content)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS complete (complete INTEGER PRIMARY KEY);
CREATE INDEX IF NOT EXISTS files_by_inode ON files (inode);
DELETE FROM manifests WHERE content NOT IN (SELECT content FROM files);
"""
"""With a cache of 512 KiB. SQLite's own 2,000 would stay in memory for good, and save a sixteenth of the processor time
of new entries; the kernel has the file's pages too."""

_VERSION = 5
MAX_VARIABLES = 999
"""Of one statement: what SQLite's bound was once."""
INODES_A_QUERY = 500
"""Files that are looked up at once."""
CACHED_STATEMENTS = 8
"""Kept compiled. Batches of different sizes are different statements, of about 100 KiB each: Python's 128 took
11 MiB."""
_MANIFESTS = "manifests (content, manifest)"
_ENTRY = "name, path, size, mtime, inode, device, content, published, ctime, executable, tag"
_COLUMNS = f"{_ENTRY}, digest"
_FILES = f"files ({_COLUMNS})"
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


class IndexFile:
    """Only for one thread at a time. Raises sqlite3.Error unless said otherwise."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._database: sqlite3.Connection | None = None
        self._intended: set[Name] = set()
        """Names that may have intents."""
        self.complete = False
        """Whether all files that were there when the index was made have been in it."""
        self.intents: dict[RowKey, Published] = {}
        """Of an earlier run: files that it was putting in place, with their times of publication."""
        self.set_aside_for = ""
        """Why the one that was there was set aside; empty when it was not."""
        self.in_memory_for = ""
        """Why it is not on the disk; empty when it is."""

    def open(self) -> dict[Name, IndexedFile]:
        """Open or make the index; the files it knows."""
        try:
            return self._load(self._connect(self.path))
        except (sqlite3.Error, MingaError) as error:
            if _is_of_disk(error):
                return self._load_in_memory(error)
            self._close_and_set_aside(error)
        try:
            return self._load(self._connect(self.path))
        except sqlite3.Error as error:
            return self._load_in_memory(error)

    def write(self, changes: Sequence[Change], *, complete: bool) -> None:
        """Write changes in one transaction, and that the index is complete."""
        entered = {change.name for change in changes if not change.is_time_only} & self._intended
        with self._opened() as database:
            _apply(database, changes)
            for some in _batches(entered, MAX_VARIABLES):
                places = ", ".join("?" * len(some))
                database.execute(f"DELETE FROM intents WHERE name IN ({places})", some)  # noqa: S608
            if complete:
                database.execute("INSERT OR REPLACE INTO complete VALUES (1)")
        self._intended -= entered

    def intend(self, intents: Mapping[RowKey, Published]) -> None:
        """Keep which files are about to be put in place, with their times of publication, until they have entries."""
        with self._opened() as database:
            rows = ((key.name, key.content_id.raw, *published) for key, published in intents.items())
            _put_all(database, "intents (name, content, published, tag)", rows)
        self._intended.update(key.name for key in intents)

    def forget_intents(self, keys: Iterable[RowKey]) -> None:
        """Remove intents: those files were not put in place."""
        with self._opened() as database:
            database.executemany(
                "DELETE FROM intents WHERE name = ? AND content = ?", ((key.name, key.content_id.raw) for key in keys)
            )

    def return_to_disk(self) -> None:
        """Write an index that is in memory to its file, and go on there. Raises StorageError, too."""
        memory, database = self._opened(), _connected(self.path)
        try:
            _make_tables(database)
            with database:
                files = memory.execute(f"SELECT {_COLUMNS} FROM files")  # noqa: S608
                _put_all(database, _FILES, files)
                manifests = memory.execute("SELECT content, manifest FROM manifests")
                _put_all(database, _MANIFESTS, manifests)
                complete = memory.execute("SELECT complete FROM complete")
                database.executemany("INSERT OR REPLACE INTO complete VALUES (?)", complete)
        except (sqlite3.Error, MingaError) as error:
            database.close()
            if not _is_of_disk(error):
                self._set_aside(error)
            raise
        memory.close()
        self._database, self.in_memory_for = database, ""

    def manifest(self, file: IndexedFile) -> Manifest | None:
        """The manifest of a file's content; None when it is not here, fails its digest, or cannot be read."""
        content = file.content_id.raw
        try:
            found = self._opened().execute("SELECT manifest FROM manifests WHERE content = ?", (content,)).fetchone()
            if found is None:
                query = "SELECT NULL, digest FROM files WHERE name = ? AND content = ?"
                found = self._opened().execute(query, (file.name, content)).fetchone()
            return None if found is None else _manifest(file.content_id, file.size_bytes, *found)
        except (sqlite3.Error, MingaError) as error:
            self._not_read(error)
            return None

    def names_after(self, name: str, limit: int) -> list[Name]:
        """See Index."""
        query = "SELECT name FROM files WHERE name > ? ORDER BY name LIMIT ?"
        try:
            return [Name(row[0]) for row in self._opened().execute(query, (name, limit)).fetchall()]
        except sqlite3.Error as error:
            self._not_read(error)
            return []

    def with_fingerprints(self, wanted: Sequence[Fingerprint]) -> list[tuple[Name, Fingerprint, ContentId, Manifest]]:
        """See Index."""
        found: list[tuple[Name, Fingerprint, ContentId, Manifest]] = []
        try:
            for start in range(0, len(wanted), INODES_A_QUERY):
                found += self._with_some(wanted[start : start + INODES_A_QUERY])
        except (sqlite3.Error, MingaError) as error:
            self._not_read(error)
        return found

    def _with_some(self, wanted: Sequence[Fingerprint]) -> Iterator[tuple[Name, Fingerprint, ContentId, Manifest]]:
        by_state = {each.numbers[:5]: each for each in wanted}
        places = ", ".join("?" * len(by_state))
        query = (
            "SELECT name, size, mtime, ctime, inode, device, content, manifest, digest "  # noqa: S608
            f"FROM files LEFT JOIN manifests USING (content) WHERE inode IN ({places})"
        )
        inodes = [_signed(inode) for _, _, _, inode, _ in by_state]
        for name, size, mtime, ctime, inode, device, content, *stored in self._opened().execute(query, inodes):
            each = by_state.get((size, mtime, ctime, _unsigned(inode), _unsigned(device)))
            if each is not None:
                content_id = ContentId(content)
                yield Name(name), each, content_id, _manifest(content_id, size, *stored)

    def close(self) -> None:
        """Close the file. Idempotent."""
        if self._database is not None:
            self._database.close()
            self._database = None

    def _not_read(self, error: Exception) -> None:
        log_event(log, logging.WARNING, "index_not_read", path=self.path, error=error)

    def _load_in_memory(self, error: Exception) -> dict[Name, IndexedFile]:
        """Go on in memory with what the file had, where that can be read."""
        self.in_memory_for = str(error)
        try:
            return self._load(self._copied_to_memory())
        except (sqlite3.Error, MingaError, OSError) as unread:
            self._not_read(unread)
            return self._load(self._connect(":memory:"))

    def _copied_to_memory(self) -> sqlite3.Connection:
        """Copy the index; after a crash by way of a temporary folder: its log is to be read too, which writes."""
        memory = self._connect(":memory:")
        log_path = Path(f"{self.path}-wal")
        if not self.path.exists():
            return memory
        if not (log_path.exists() and log_path.stat().st_size):
            _copy(f"{self.path.as_uri()}?mode=ro&immutable=1", memory)
            return memory
        with TemporaryDirectory(prefix="minga-") as folder:
            copy = Path(folder, self.path.name)
            shutil.copyfile(self.path, copy)
            shutil.copyfile(log_path, f"{copy}-wal")
            _copy(copy.as_uri(), memory)
        return memory

    def _connect(self, path: Path | str) -> sqlite3.Connection:
        """A connection in place of the one before, which is closed. path: of a file, or `:memory:`."""
        self.close()
        self._database = _connected(path)
        return self._database

    def _load(self, database: sqlite3.Connection) -> dict[Name, IndexedFile]:
        _make_tables(database)
        self.complete = database.execute("SELECT 1 FROM complete").fetchone() is not None
        intents = database.execute("SELECT name, content, published, tag FROM intents")
        self.intents = {
            RowKey(Name(name), ContentId(content)): Published(published, tag)
            for name, content, published, tag in intents
        }
        self._intended = {key.name for key in self.intents}
        rows = database.execute(f"SELECT {_ENTRY} FROM files")  # noqa: S608
        return {
            Name(name): IndexedFile(
                Name(name),
                path,
                Fingerprint(size, mtime, ctime, _unsigned(inode), _unsigned(device), bool(executable)),
                ContentId(content),
                published,
                tag,
            )
            for name, path, size, mtime, inode, device, content, published, ctime, executable, tag in rows
        }

    def _close_and_set_aside(self, error: Exception) -> None:
        self.set_aside_for = str(error)
        self.close()
        self._set_aside(error)

    def _set_aside(self, error: Exception) -> None:
        log_event(log, logging.WARNING, "index_set_aside", path=self.path, error=error)
        # When it cannot be moved, opening it again raises the reason.
        with suppress(OSError):
            for suffix in ("-wal", "-shm"):
                Path(f"{self.path}{suffix}").unlink(missing_ok=True)
            self.path.replace(self.path.with_suffix(".broken"))

    def _opened(self) -> sqlite3.Connection:
        if self._database is None:
            raise RuntimeError("the index is not open")
        return self._database


def _connected(path: Path | str) -> sqlite3.Connection:
    """A connection for any thread, by one at a time."""
    return sqlite3.connect(path, check_same_thread=False, cached_statements=CACHED_STATEMENTS)


def _apply(database: sqlite3.Connection, changes: Sequence[Change]) -> None:
    """Make changes, each of another name."""
    gone = ((change.name,) for change in changes if change.file is None)
    database.executemany("DELETE FROM files WHERE name = ?", gone)
    timed = [change.file for change in changes if change.file is not None and change.manifest is None]
    times = ((file.published_ns, file.tag, file.name, file.content_id.raw) for file in timed)
    database.executemany("UPDATE files SET published = ?, tag = ? WHERE name = ? AND content = ?", times)
    put = [
        (change.file, change.manifest) for change in changes if change.file is not None and change.manifest is not None
    ]
    _put_all(database, _FILES, (_row_of(file, manifest) for file, manifest in put))
    # In the order of their keys, so that each page is read and written once: they are spread over all of the table.
    large = [(file.content_id.raw, manifest) for file, manifest in put if manifest.geometry.chunk_count > 1]
    manifests = sorted((content, manifest.encode()) for content, manifest in large)
    _put_all(database, _MANIFESTS, manifests)


def _put_all(database: sqlite3.Connection, table: str, rows: Iterable[_Row]) -> None:
    """Insert or replace rows. table: with its columns.

    Many in a statement: for each statement SQLite gives up the interpreter's lock, and then waits for it.
    """
    width = table.count(",") + 1
    places = f"({', '.join('?' * width)})"
    for some in _batches(rows, MAX_VARIABLES // width):
        values = ", ".join([places] * len(some))
        database.execute(f"INSERT OR REPLACE INTO {table} VALUES {values}", [*chain.from_iterable(some)])  # noqa: S608


def _batches(items: Iterable[T], most: int) -> Iterator[list[T]]:
    source = iter(items)
    while batch := list(islice(source, most)):
        yield batch


def _manifest(content_id: ContentId, size_bytes: int, encoded: bytes | None, digest: bytes = b"") -> Manifest:
    """A manifest as `manifests` has it, or made of the digest that `files` has. Raises MingaError when it is not that
    of this content."""
    if encoded is not None:
        return Manifest.decode(encoded, expected=content_id)
    manifest = Manifest.from_digests(size_bytes, digest)
    if manifest.content_id != content_id:
        raise InvalidManifestError(f"the digest does not match the content id {content_id.short}")
    return manifest


def _row_of(file: IndexedFile, manifest: Manifest) -> _Row:
    """A file as `files` has it, in the order of _COLUMNS."""
    size_bytes, modified_ns, changed_ns, inode, device, executable = file.fingerprint.numbers
    return (
        file.name,
        file.path,
        size_bytes,
        modified_ns,
        _signed(inode),
        _signed(device),
        file.content_id.raw,
        file.published_ns,
        changed_ns,
        int(executable),
        file.tag,
        manifest.digests if manifest.geometry.chunk_count == 1 else b"",
    )


def _copy(uri: str, to: sqlite3.Connection) -> None:
    with closing(sqlite3.connect(uri, uri=True)) as database:
        database.backup(to)


def _make_tables(database: sqlite3.Connection) -> None:
    """Make the tables, or bring them to this version. Raises StorageError for a version that is not known."""
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if not 0 <= version <= _VERSION:
        raise StorageError(f"it has version {version}, not {_VERSION}")
    if version == 1:
        # It lacks one time of each file: all are hashed again, and keep when they were published.
        database.execute("ALTER TABLE files ADD COLUMN ctime INTEGER NOT NULL DEFAULT -1")
    if version in (1, 2):
        # Those that are executable are hashed again.
        database.execute("ALTER TABLE files ADD COLUMN executable INTEGER NOT NULL DEFAULT 0")
    if version in (1, 2, 3):
        _add_column(database, "files", "tag")
        _add_column(database, "intents", "tag")
    if version in (1, 2, 3, 4):
        _add_column(database, "files", "digest")
    database.executescript(_SCHEMA)
    if version in (1, 2):
        # It had no such note: what it lacks was made while the peer was away.
        with database:
            database.execute("INSERT OR REPLACE INTO complete VALUES (1)")


def _add_column(database: sqlite3.Connection, table: str, name: str) -> None:
    """Add a column of bytes to a table that is there and has none of that name."""
    columns = [each for _, each, *_ in database.execute(f"PRAGMA table_info({table})")]
    if columns and name not in columns:
        database.execute(f"ALTER TABLE {table} ADD COLUMN {name} BLOB NOT NULL DEFAULT x''")


def _is_of_disk(error: Exception) -> bool:
    return isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", 0) & 0xFF in _DISK_CODES


def _signed(number: int) -> int:
    """An unsigned 64-bit number as SQLite keeps it; some file systems hand out inodes above 2^63."""
    return number - (1 << 64) if number >= 1 << 63 else number


def _unsigned(number: int) -> int:
    return number % (1 << 64)
