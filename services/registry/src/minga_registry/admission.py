"""What callers may have of a registry at once, so that one that floods it leaves room for the others."""

import asyncio
from collections.abc import AsyncIterator

from minga_protos.registry.v1 import registry_pb2 as pb
from minga_runtime.shares import Shares

MAX_CALLS = 4_000
"""Registrations, heartbeats and goodbyes under way: some seconds of the store's work when it is slow."""
MAX_STREAMS = 20_000
"""Standing streams: twice the fleet that one replica is measured with, at about 30 KiB each."""
BEAT_SECONDS = 0.2
"""Between two heartbeats that are taken from one stream in the long run. The shortest lease is a second, which is
beaten for three times: only a flood waits for this."""
BEAT_BURST = 10
"""Heartbeats that are taken at once after a pause."""


class Admission:
    """Shares of a registry."""

    def __init__(self, max_pushes: int) -> None:
        self.calls = Shares("calls", MAX_CALLS)
        self.pushes = Shares("table pushes", max_pushes)
        self.streams = Shares("heartbeat streams", MAX_STREAMS)


async def paced(
    requests: AsyncIterator[pb.HeartbeatRequest], beat_seconds: float = BEAT_SECONDS
) -> AsyncIterator[pb.HeartbeatRequest]:
    """The same heartbeats, at that pace in the long run. Those that are not read yet wait at the caller."""
    loop = asyncio.get_running_loop()
    due = 0.0
    async for request in requests:
        now = loop.time()
        if (early := due - now - BEAT_BURST * beat_seconds) > 0:
            await asyncio.sleep(early)
        due = max(due, now) + beat_seconds
        yield request
