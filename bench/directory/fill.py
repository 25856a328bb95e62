"""Runs in a worker: fills a store through the directory's own writer. Leases last for hours, so nothing renews them."""

import asyncio
from datetime import timedelta

from bench.directory import fixture
from bench.directory.fixture import Layout
from minga_core.errors import UnavailableError
from minga_core.records import Lease, PeerInfo
from minga_directory import connect_writer
from minga_directory.directory import DirectoryWriter

LEASE = timedelta(hours=12)
AT_ONCE = 4
BATCH_ROWS = 1_000
TRIES = 20
"""Of each peer: a store that shares a busy machine may answer later than the directory waits, some seconds."""


async def fill(url: str, layout: Layout, mine: list[int], first_name: int = 0, first_peer: int = 0) -> None:
    """Pushes the tables of those peers. first_name, first_peer: added to all numbers of the layout."""
    waiting = list(mine)
    writer = connect_writer(url)

    async def work() -> None:
        while waiting:
            peer = waiting.pop()
            numbers = [first_name + number for block in layout.blocks_of(peer) for number in layout.numbers_in(block)]
            for left in reversed(range(TRIES)):
                try:
                    await _push(writer, fixture.peer_info(first_peer + peer), numbers)
                    break
                except UnavailableError:
                    if not left:
                        raise

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(work())
    finally:
        await writer.aclose()


async def _push(writer: DirectoryWriter, info: PeerInfo, numbers: list[int]) -> None:
    """Register a peer and push its table; safe to repeat."""
    await writer.register(info, LEASE)
    async with writer.push_table(Lease(info.peer_id, info.generation), whole=True, base_revision=0, revision=1) as push:
        for start in range(0, len(numbers), BATCH_ROWS):
            await push.put([fixture.row(number) for number in numbers[start : start + BATCH_ROWS]])
        await push.commit()
