"""Every kind of store that the directory is to work on, started and ended by its name."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from deploy.tests.redis.programs import program
from deploy.tests.redis.topologies import ClusterStore, SentinelStore
from tests.support.redis_server import RedisServer


@dataclass(frozen=True)
class Store:
    """One that runs."""

    url: str
    admin_urls: list[str]


PROGRAMS = ("valkey", "redis-7", "redis-6.2")
KINDS = ("single", "sentinel", "cluster")


@contextlib.contextmanager
def running(kind: str, program_name: str) -> Iterator[Store]:
    """A store of that kind, made of that program, for the block."""
    found = program(program_name)
    if kind == "single":
        server = RedisServer(tcp=True, program=found, password="a?b@c/d")
        with contextlib.closing(server):
            server.start()
            yield Store(server.url, [server.url])
        return
    store = SentinelStore(found) if kind == "sentinel" else ClusterStore(found)
    with contextlib.closing(store):
        store.start()
        yield Store(store.url, store.admin_urls)
