"""Runs in a worker: fills a store through the directory's own writer. Leases last for hours, so nothing renews them."""

import asyncio
from datetime import timedelta

from bench.directory import fixture
from bench.directory.fixture import Layout
from minga_core.records import Lease
from minga_directory import connect_writer

LEASE = timedelta(hours=12)
AT_ONCE = 4
BATCH_ROWS = 1_000


async def fill(url: str, layout: Layout, mine: list[int], first_name: int = 0, first_peer: int = 0) -> None:
    """Pushes the tables of those peers. first_name, first_peer: added to all numbers of the layout."""
    waiting = list(mine)
    writer = connect_writer(url)

    async def work() -> None:
        while waiting:
            peer = waiting.pop()
            info = fixture.peer_info(first_peer + peer)
            await writer.register(info, LEASE)
            numbers = [first_name + number for block in layout.blocks_of(peer) for number in layout.numbers_in(block)]
            async with writer.push_table(
                Lease(info.peer_id, info.generation), whole=True, base_revision=0, revision=1
            ) as push:
                for start in range(0, len(numbers), BATCH_ROWS):
                    await push.put([fixture.row(number) for number in numbers[start : start + BATCH_ROWS]])
                await push.commit()

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(work())
    finally:
        await writer.aclose()
