"""`maxmemory` is reached: pushes are told so, and everything that does not grow goes on."""

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from deploy.tests.redis.programs import program
from deploy.tests.redis.stores import PROGRAMS
from minga_core.errors import StoreUnavailableError
from minga_core.ids import Generation, PeerId
from minga_directory import RedisDirectoryWriter
from minga_directory.directory import DirectoryWriter
from tests.conformance.harness import SHORT, Harness, eventually, over, row, rows
from tests.support.redis_server import RedisServer

FULL = r"Redis has reached its maxmemory"


class FullStore:
    """A directory whose server takes no more."""

    def __init__(self, directory: Harness, server: RedisServer) -> None:
        self.directory = directory
        self._server = server

    @property
    def writer(self) -> DirectoryWriter:
        """Of the directory."""
        assert isinstance(self.directory.writer, RedisDirectoryWriter)
        return self.directory.writer

    def fill(self) -> None:
        """From now on it has more than it may."""
        self._server.command("CONFIG", "SET", "maxmemory", "1mb")

    def empty(self) -> None:
        """It may have as much as it likes."""
        self._server.command("CONFIG", "SET", "maxmemory", "0")


@pytest.fixture(params=[(name, cluster) for name in PROGRAMS for cluster in (False, True)], ids=str)
async def store(request: pytest.FixtureRequest) -> AsyncIterator[FullStore]:
    """On every program, on one server and on a Cluster."""
    name, cluster = request.param
    server = RedisServer(program=program(name), cluster=cluster, options={"maxmemory-policy": "noeviction"})
    server.start()
    try:
        async with over(server.url) as directory:
            # A table that is larger than what is allowed later.
            await directory.register("full")
            await directory.push("full", rows([f"file-{number:06}" for number in range(5_000)]))
            yield FullStore(directory, server)
    finally:
        server.close()


async def test_a_push_of_rows_says_that_redis_is_full_and_leaves_the_old_table(store: FullStore) -> None:
    """Whole or a change; and succeeds once there is room."""
    directory = store.directory
    await directory.register("a")
    await directory.push("a", [row("x")])
    store.fill()
    with pytest.raises(StoreUnavailableError, match=FULL):
        await directory.push("a", [row("y")], revision=2)
    with pytest.raises(StoreUnavailableError, match=FULL):
        await directory.change("a", [row("z")])
    assert await directory.holders("x") != {}
    assert await directory.beat("a") == "ok"
    store.empty()
    await directory.change("a", [row("z")])
    assert await directory.holders("z") != {}


async def test_leases_live_on(store: FullStore) -> None:
    """Of those who are there, for as long as they beat; also in the index that reaping goes by."""
    directory = store.directory
    await directory.register("a", ttl=timedelta(seconds=1))
    await directory.push("a", [row("x")])
    store.fill()
    for _ in range(20):
        assert await directory.beat("a", ttl=timedelta(seconds=1)) == "ok"
        assert await directory.holders("x") != {}
        await store.writer.reap()
        assert await store.writer.lease_counts() == (2, 0)
    await directory.register("a", ttl=timedelta(seconds=60))
    assert await directory.beat("a") == "ok"


async def test_a_peer_that_restarts_is_let_in_again(store: FullStore) -> None:
    """A lease is little. Its table has to wait."""
    directory = store.directory
    store.fill()
    await directory.register("full", generation=2)
    assert await directory.beat("full", 2) == "push_table"
    await directory.register("new")
    assert await directory.beat("new", revision=-1) in ("ok", "push_table")


async def test_what_goes_makes_room(store: FullStore) -> None:
    """Rows are removed, a peer leaves, another dies and is reaped: none of it is refused."""
    directory = store.directory
    await directory.register("dies", ttl=SHORT)
    await directory.push("dies", rows(["d1", "d2"]))
    await directory.register("leaves")
    await directory.push("leaves", rows(["l1", "l2"]))
    await directory.register("removes")
    await directory.push("removes", rows(["r1", "r2"]))
    store.fill()
    await directory.change("removes", remove=[row("r1", "r1").key])
    assert await directory.writer.leave(PeerId("leaves"), Generation(1))
    await directory.let_end("dies")
    assert await directory.writer.leave(PeerId("full"), Generation(1))
    await directory.until_names(["r2"])
    assert await directory.holders("r2") != {}


async def test_a_whole_table_of_what_is_there_already_is_refused_too_and_harms_nothing(store: FullStore) -> None:
    """It is written beside the old one first. The old one stays, found as before, and nothing is left of the new."""
    directory = store.directory
    store.fill()
    with pytest.raises(StoreUnavailableError, match=FULL):
        await directory.push("full", rows([f"file-{number:06}" for number in range(100)]), revision=2)
    assert await directory.holders("file-004000") != {}
    store.empty()
    await eventually(lambda: _whole(directory))


async def _whole(directory: Harness) -> bool:
    await directory.settle()
    return len(await directory.names()) == 5_000
