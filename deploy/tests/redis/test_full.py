"""`maxmemory` is reached: pushes fail with that reason, and everything that does not grow goes on."""

from collections.abc import AsyncIterator, Callable
from datetime import timedelta

import pytest

from deploy.tests.redis.programs import program
from deploy.tests.redis.stores import PROGRAMS
from minga_core.errors import StoreUnavailableError
from tests.conformance.harness import SHORT, Harness, lease, over, row, rows
from tests.support.redis_server import RedisServer

FULL = r"Redis has reached its maxmemory"
FULL_BYTES = "1mb"
"""Less than the server holds."""
Limit = Callable[[str], object]
"""Sets maxmemory; 0: none."""


@pytest.fixture(params=[(name, cluster) for name in PROGRAMS for cluster in (False, True)], ids=str)
async def store(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Harness, Limit]]:
    """On every program, on one server and on a Cluster."""
    name, cluster = request.param
    server = RedisServer(program=program(name), cluster=cluster, options={"maxmemory-policy": "noeviction"})
    server.start()
    try:
        async with over(server.url) as directory:
            # A table that is larger than what is allowed later.
            await directory.register("full")
            await directory.push("full", rows([f"file-{number:06}" for number in range(5_000)]))
            yield directory, lambda limit: server.command("CONFIG", "SET", "maxmemory", limit)
    finally:
        server.close()


async def test_a_push_of_rows_says_that_redis_is_full_and_leaves_the_old_table(store: tuple[Harness, Limit]) -> None:
    """Whole or a change; and succeeds once there is room."""
    directory, set_limit = store
    await directory.register("a")
    await directory.push("a", [row("x")])
    set_limit(FULL_BYTES)
    with pytest.raises(StoreUnavailableError, match=FULL):
        await directory.push("a", [row("y")], revision=2)
    with pytest.raises(StoreUnavailableError, match=FULL):
        await directory.change("a", [row("z")])
    assert await directory.holders("x") != {}
    assert await directory.beat("a") == "ok"
    set_limit("0")
    await directory.change("a", [row("z")])
    assert await directory.holders("z") != {}


async def test_leases_are_renewed_when_redis_is_full(store: tuple[Harness, Limit]) -> None:
    """Of peers that send heartbeats; also in the index of leases."""
    directory, set_limit = store
    await directory.register("a", ttl=timedelta(seconds=1))
    await directory.push("a", [row("x")])
    set_limit(FULL_BYTES)
    for _ in range(20):
        assert await directory.beat("a") == "ok"
        assert await directory.holders("x") != {}
        await directory.writer.reap()
        assert await directory.writer.lease_counts() == (2, 0)
    await directory.register("a", ttl=timedelta(seconds=60))
    assert await directory.beat("a") == "ok"


async def test_a_peer_registers_again_when_redis_is_full(store: tuple[Harness, Limit]) -> None:
    """A lease is little. Its table has to wait."""
    directory, set_limit = store
    set_limit(FULL_BYTES)
    await directory.register("full", generation=2)
    assert await directory.beat("full", 2) == "push_table"
    await directory.register("new")
    assert await directory.beat("new", revision=-1) in ("ok", "push_table")


async def test_removals_and_leaves_are_not_refused_when_redis_is_full(store: tuple[Harness, Limit]) -> None:
    """Rows are removed, a peer leaves, another dies and is reaped: none of it is refused."""
    directory, set_limit = store
    await directory.register("dies", ttl=SHORT)
    await directory.push("dies", rows(["d1", "d2"]))
    await directory.register("leaves")
    await directory.push("leaves", rows(["l1", "l2"]))
    await directory.register("removes")
    await directory.push("removes", rows(["r1", "r2"]))
    set_limit(FULL_BYTES)
    await directory.change("removes", remove=[row("r1", "r1").key])
    assert await directory.writer.leave(lease("leaves"))
    await directory.let_end("dies")
    assert await directory.writer.leave(lease("full"))
    await directory.until_names(["r2"])
    assert await directory.holders("r2") != {}
