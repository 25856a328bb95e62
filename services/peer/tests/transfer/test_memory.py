"""What a daemon keeps in memory after many downloads: nothing for each."""

import gc
import tracemalloc

from .conftest import Network, noise
from .test_swarm_download import fetch

WARM_UP, MEASURED = 40, 120
MAX_BYTES_EACH = 2100
"""1,400 are the journal of the file table, which is bounded; a progress that is kept by mistake is 1,500 more."""


async def test_many_downloads_leave_no_memory_behind(network: Network) -> None:
    """One small file, fetched again and again: each time a new job, swarm, part and connection's work."""
    seed, downloader = await network.peer("seed"), await network.peer("downloader")
    network.directory.holds(await seed.shares("file", noise(1000)), seed.source)

    async def repeat(times: int) -> int:
        for _ in range(times):
            await fetch(downloader, "file")
            await downloader.store.remove("file")  # type: ignore[arg-type]
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        before = await repeat(WARM_UP)
        after = await repeat(MEASURED)
    finally:
        tracemalloc.stop()
    assert (after - before) / MEASURED < MAX_BYTES_EACH
