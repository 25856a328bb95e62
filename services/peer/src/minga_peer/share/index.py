"""The index of digests: path and stamp → content, so that a restart hashes nothing again.

One SQLite file in WAL mode, used from one thread. It is a cache of what the disk says: a file that SQLite refuses is
set aside and built anew.
"""

import logging
import sqlite3
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from minga_core.errors import MingaError, NoSpaceError, StorageError
from minga_core.ids import ContentId
from minga_core.manifest import Manifest
from minga_core.names import Name
from minga_engine.parts.files import Stamp
from minga_runtime.logs import log_event

log = logging.getLogger(__name__)

_SCHEMA = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = NORMAL;
PRAGMA user_version = 1;
CREATE TABLE IF NOT EXISTS files (
  name TEXT PRIMARY KEY, path TEXT NOT NULL, size INTEGER NOT NULL, mtime INTEGER NOT NULL, inode INTEGER NOT NULL,
  device INTEGER NOT NULL, content BLOB NOT NULL, published INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS manifests (content BLOB PRIMARY KEY, manifest BLOB NOT NULL) WITHOUT ROWID;
DELETE FROM manifests WHERE content NOT IN (SELECT content FROM files);
"""

_VERSION = 1
_DISK_CODES = (
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
)
"""The disk's refusals: the index itself may be as good as ever, and must not be thrown away for them."""


@dataclass(frozen=True, slots=True)
class IndexedFile:
    """A file whose digests are known, as long as its stamp is this one."""

    name: Name
    path: str
    stamp: Stamp
    content_id: ContentId
    published_ns: int


class Index:
    """The index. Every method blocks and must be called through `thread`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._database: sqlite3.Connection | None = None
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="minga-index")

    def open(self) -> dict[Name, IndexedFile]:
        """Opens or makes the index; what it knows. A damaged one is set aside and made anew.

        Raises StorageError or NoSpaceError when the disk does not let it be opened at all.
        """
        try:
            return self._open()
        except (sqlite3.Error, MingaError) as error:
            if isinstance(error, sqlite3.Error) and error.sqlite_errorcode & 0xFF in _DISK_CODES:
                raise self._refused(error) from error
            self._set_aside(error)
        try:
            return self._open()
        except sqlite3.Error as error:
            raise self._refused(error) from error

    def _refused(self, error: sqlite3.Error) -> MingaError:
        kind = NoSpaceError if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_FULL else StorageError
        return kind(f"cannot open the index {self._path}: {error}")

    def _open(self) -> dict[Name, IndexedFile]:
        self._database = sqlite3.connect(self._path, check_same_thread=False)
        (version,) = self._database.execute("PRAGMA user_version").fetchone()
        if version not in (0, _VERSION):
            raise StorageError(f"it has version {version}, not {_VERSION}")
        self._database.executescript(_SCHEMA)
        rows = self._database.execute(
            "SELECT name, path, size, mtime, inode, device, content, published FROM files"
        ).fetchall()
        return {
            Name(name): IndexedFile(
                Name(name), path, Stamp(size, mtime, _unsigned(inode), _unsigned(device)), ContentId(content), published
            )
            for name, path, size, mtime, inode, device, content, published in rows
        }

    def _set_aside(self, error: Exception) -> None:
        log_event(log, logging.WARNING, "index_set_aside", path=self._path, error=error)
        self.close()
        for suffix in ("-wal", "-shm"):
            Path(f"{self._path}{suffix}").unlink(missing_ok=True)
        # When it cannot be moved, opening it again tells why.
        with suppress(OSError):
            self._path.replace(self._path.with_suffix(".broken"))

    def write(self, put: Iterable[tuple[IndexedFile, Manifest | None]], remove: Iterable[Name]) -> None:
        """Takes files (with their manifest, unless it is known) and forgets names, in one transaction."""
        database = self._opened()
        try:
            with database:
                database.executemany("DELETE FROM files WHERE name = ?", ((name,) for name in remove))
                for file, manifest in put:
                    self._put(database, file, manifest)
        except sqlite3.Error as error:
            # The index is a cache: without this entry the file is hashed again after a restart, nothing is lost.
            log_event(log, logging.WARNING, "index_not_written", path=self._path, error=error)

    @staticmethod
    def _put(database: sqlite3.Connection, file: IndexedFile, manifest: Manifest | None) -> None:
        stamp = file.stamp
        database.execute(
            "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                file.name,
                file.path,
                stamp.size_bytes,
                stamp.modified_ns,
                _signed(stamp.inode),
                _signed(stamp.device),
                file.content_id.raw,
                file.published_ns,
            ),
        )
        if manifest is not None:
            database.execute("INSERT OR REPLACE INTO manifests VALUES (?, ?)", (file.content_id.raw, manifest.encode()))

    def manifest(self, content_id: ContentId) -> Manifest | None:
        """The manifest of a content; None when it is not known or does not prove itself."""
        try:
            row = (
                self._opened().execute("SELECT manifest FROM manifests WHERE content = ?", (content_id.raw,)).fetchone()
            )
            return None if row is None else Manifest.decode(row[0], expected=content_id)
        except (sqlite3.Error, MingaError) as error:
            log_event(log, logging.WARNING, "index_not_read", path=self._path, error=error)
            return None

    def close(self) -> None:
        """Closes the file."""
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
