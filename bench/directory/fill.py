"""Fills a store through the directory's own writer, as fast as can be. Leases last for hours, so nobody must renew."""

import asyncio
import time
from datetime import timedelta
from typing import Any

from bench.directory import world
from bench.directory.worker import serve
from bench.directory.world import World
from minga_directory import connect_writer
from minga_directory.writer import RedisDirectoryWriter

LEASE = timedelta(hours=12)
AT_ONCE = 4
BATCH_ROWS = 1_000


async def fill(
    url: str, names: int, copies: int, peers: int, part: int, parts: int, first_name: int = 0, first_peer: int = 0
) -> dict[str, Any]:
    """Pushes the tables of each `parts`-th peer of that world. The rows pushed, and the seconds it took."""
    made = World(names, copies, peers)
    waiting = list(range(part, peers, parts))
    pushed = 0
    started = time.monotonic()
    writer = connect_writer(url)

    async def work() -> None:
        nonlocal pushed
        while waiting:
            pushed += await _push(writer, made, waiting.pop(), first_name, first_peer)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(work())
    finally:
        await writer.aclose()
    return {"rows": pushed, "seconds": time.monotonic() - started}


async def _push(writer: RedisDirectoryWriter, made: World, peer: int, first_name: int, first_peer: int) -> int:
    info = world.peer_info(first_peer + peer)
    await writer.register(info, LEASE)
    numbers = [first_name + number for block in made.blocks_of(peer) for number in made.numbers_in(block)]
    async with writer.push_table(info.peer_id, info.generation, whole=True, base_revision=0, revision=1) as push:
        for start in range(0, len(numbers), BATCH_ROWS):
            await push.put([world.row(number) for number in numbers[start : start + BATCH_ROWS]])
        await push.commit()
    return len(numbers)


if __name__ == "__main__":
    serve({"fill": fill})
