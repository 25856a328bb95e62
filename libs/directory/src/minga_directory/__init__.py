"""All knowledge of Redis: keys, records, scripts, and the ports that the services use.

Services take a `DirectoryWriter` or `DirectoryReader`; `connect_writer` and `connect_reader` give one over a Redis URL,
`MemoryDirectory` is both in memory.
"""

from datetime import timedelta

from minga_directory.connection import connect
from minga_directory.memory import MemoryDirectory
from minga_directory.observing import (
    OUTCOMES,
    READER_OPERATIONS,
    WRITER_OPERATIONS,
    ObservedReader,
    ObservedWriter,
    StoreObserver,
)
from minga_directory.ports import (
    CatalogueEntry,
    CataloguePage,
    DirectoryReader,
    DirectoryStats,
    DirectoryWriter,
    HeartbeatOutcome,
    Holder,
    PeerRecord,
    Placement,
    TablePush,
    Version,
)
from minga_directory.reader import RedisDirectoryReader
from minga_directory.writer import RedisDirectoryWriter

__all__ = [
    "OUTCOMES",
    "READER_OPERATIONS",
    "WRITER_OPERATIONS",
    "CatalogueEntry",
    "CataloguePage",
    "DirectoryReader",
    "DirectoryStats",
    "DirectoryWriter",
    "HeartbeatOutcome",
    "Holder",
    "MemoryDirectory",
    "ObservedReader",
    "ObservedWriter",
    "PeerRecord",
    "Placement",
    "RedisDirectoryReader",
    "RedisDirectoryWriter",
    "StoreObserver",
    "TablePush",
    "Version",
    "connect_reader",
    "connect_writer",
]


def connect_writer(url: str, *, fill: timedelta = timedelta(0)) -> RedisDirectoryWriter:
    """A writer over a Redis URL; the caller closes it. Does not wait for Redis. Raises SettingsError for a bad URL.

    fill: see RedisDirectoryWriter.
    """
    return RedisDirectoryWriter(connect(url), fill=fill)


def connect_reader(url: str, *, doubtful: bool = False) -> RedisDirectoryReader:
    """A reader over a Redis URL; the caller closes it. Does not wait for Redis. Raises SettingsError for a bad URL.

    doubtful: see RedisDirectoryReader.
    """
    return RedisDirectoryReader(connect(url), doubtful=doubtful)
