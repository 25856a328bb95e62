"""Make a store, a writer or a reader of `MINGA_REDIS_URL`."""

from datetime import timedelta

from minga_directory.cluster import ClusterStore
from minga_directory.reader import RedisDirectoryReader
from minga_directory.sentinel import SentinelStore
from minga_directory.store import ServerStore, Store
from minga_directory.urls import Topology, parse_store_url
from minga_directory.writer import RedisDirectoryWriter


def connect(url: str) -> Store:
    """A store over any URL that `urls` describes. Connects when first used; the caller closes it.

    Raises SettingsError for a URL that is none.
    """
    parsed = parse_store_url(url)
    match parsed.topology:
        case Topology.SENTINEL:
            return SentinelStore(parsed)
        case Topology.CLUSTER:
            return ClusterStore(parsed)
    where = {"host": parsed.nodes[0][0], "port": parsed.nodes[0][1]} if parsed.nodes else {}
    return ServerStore({**parsed.options, **where})


def connect_writer(url: str, *, warm_up: timedelta = timedelta(0)) -> RedisDirectoryWriter:
    """A writer over a Redis URL; the caller closes it. Does not wait for Redis. Raises SettingsError for a bad URL.

    warm_up: see RedisDirectoryWriter.
    """
    return RedisDirectoryWriter(connect(url), warm_up=warm_up)


def connect_reader(
    url: str, *, refuse_while_recovering: bool = False, published_only: bool = False
) -> RedisDirectoryReader:
    """A reader over a Redis URL; the caller closes it. Does not wait for Redis. Raises SettingsError for a bad URL.

    refuse_while_recovering, published_only: see RedisDirectoryReader.
    """
    return RedisDirectoryReader(
        connect(url), refuse_while_recovering=refuse_while_recovering, published_only=published_only
    )
