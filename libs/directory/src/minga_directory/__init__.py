"""All knowledge of Redis: keys, records, scripts, and the protocols that the services use.

Services take a `DirectoryWriter` or `DirectoryReader`; `connect_writer` and `connect_reader` give one over a Redis URL.
"""

from minga_directory.connect import connect_reader, connect_writer
from minga_directory.directory import (
    CatalogEntry,
    CatalogPage,
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
from minga_directory.observing import (
    OUTCOMES,
    READER_OPERATIONS,
    WRITER_OPERATIONS,
    StoreObserver,
    observed_reader,
    observed_writer,
)
from minga_directory.reader import RedisDirectoryReader
from minga_directory.writer import RedisDirectoryWriter

__all__ = [
    "OUTCOMES",
    "READER_OPERATIONS",
    "WRITER_OPERATIONS",
    "CatalogEntry",
    "CatalogPage",
    "DirectoryReader",
    "DirectoryStats",
    "DirectoryWriter",
    "HeartbeatOutcome",
    "Holder",
    "PeerRecord",
    "Placement",
    "RedisDirectoryReader",
    "RedisDirectoryWriter",
    "StoreObserver",
    "TablePush",
    "Version",
    "connect_reader",
    "connect_writer",
    "observed_reader",
    "observed_writer",
]
