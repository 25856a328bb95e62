"""Large tables: in reasonable time, in bounded memory, in bounded steps of the server."""

import time

import pytest

from minga_core.ids import PeerId
from minga_core.names import Name
from tests.conformance.harness import Harness, lease, over, row

ROWS = 100_000
BATCH = 1_000
LIMIT_SECONDS = 40.0
"""A bound on quadratic work, not a figure."""


@pytest.mark.redis
@pytest.mark.timeout(180)
async def test_a_large_table_is_pushed_searched_and_changed(redis_url: str) -> None:
    """1. Push it whole, in batches. 2. Find and list in it. 3. Change one row of it: that is quick."""
    async with over(redis_url) as directory:
        await push_and_look(directory)


async def push_and_look(on_redis: Harness) -> None:
    """The three steps."""
    await on_redis.register("a")
    started = time.monotonic()
    begun = on_redis.writer.push_table(lease("a"), whole=True, base_revision=0, revision=1)
    async with begun as push:
        for start in range(0, ROWS, BATCH):
            numbers = range(start, start + BATCH)
            await push.put([row(f"dir{number % 100:02}/file{number:06}", f"{number}") for number in numbers])
        await push.commit()
    elapsed = time.monotonic() - started
    assert elapsed < LIMIT_SECONDS
    assert (await on_redis.reader.get_peer(PeerId("a"))).file_count == ROWS
    assert (await on_redis.reader.stats()).names == ROWS
    assert len(await on_redis.reader.find(Name("dir42/file023442"))) == 1
    page = await on_redis.reader.list_names(query="FILE09999")
    while not page.entries and page.next_after:
        page = await on_redis.reader.list_names(query="FILE09999", after=page.next_after)
    assert page.entries[0].name == "dir90/file099990"
    started = time.monotonic()
    await on_redis.change("a", [row("dir00/new")], [row("dir00/file000000", "0").key])
    assert time.monotonic() - started < 5.0
    assert (await on_redis.reader.get_peer(PeerId("a"))).file_count == ROWS
