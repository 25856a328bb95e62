"""Heartbeat streams: paced, and ended in order when they are old or the registry stops."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from minga_core.errors import InvalidArgumentError
from minga_protos.registry.v1 import registry_pb2 as pb

JITTER = 0.2
"""Lifetimes differ by this share, so that a fleet that came at once does not come again at once."""
PACE_SECONDS = 0.2
"""Between two heartbeats that are read from one stream in the long run. The shortest lease is a second, which is
renewed three times: only a flood waits for this."""
BURST = 10
"""Heartbeats that are read at once after a pause."""


class StandingStreams:
    """Ends streams in order: their handlers return, so that the caller opens another one, elsewhere if need be."""

    def __init__(self, life: timedelta, rng: random.Random | None = None) -> None:
        self._life = life
        self._rng = rng or random.Random()  # noqa: S311 - jitter, not secrets
        self._open: set[asyncio.Timeout] = set()
        self._ending = False

    @asynccontextmanager
    async def standing(self) -> AsyncIterator[None]:
        """The block is left when the stream's life is over, at whatever await it is."""
        life = 0.0 if self._ending else self._life.total_seconds() * self._rng.uniform(1 - JITTER, 1 + JITTER)
        limit = asyncio.timeout(life)
        try:
            async with limit:
                self._open.add(limit)
                yield
        except TimeoutError:
            if not limit.expired():
                raise
        finally:
            self._open.discard(limit)

    def end(self) -> None:
        """Ends all streams, and those that come from now on."""
        self._ending = True
        now = asyncio.get_running_loop().time()
        for limit in self._open:
            limit.reschedule(now)


async def paced(
    requests: AsyncIterator[pb.HeartbeatRequest], pace_seconds: float = PACE_SECONDS
) -> AsyncIterator[pb.HeartbeatRequest]:
    """The same heartbeats, at that pace in the long run. Those that are not read yet wait at the caller."""
    loop = asyncio.get_running_loop()
    due = 0.0
    async for request in requests:
        now = loop.time()
        if (early := due - now - BURST * pace_seconds) > 0:
            await asyncio.sleep(early)
        due = max(due, now) + pace_seconds
        yield request


async def of_one_peer(requests: AsyncIterator[pb.HeartbeatRequest]) -> AsyncIterator[pb.HeartbeatRequest]:
    """The same heartbeats. Raises InvalidArgumentError for one of another peer than the first: a stream counts as one
    peer's in the limits of a host."""
    peer_id = None
    async for request in requests:
        peer_id = request.peer_id if peer_id is None else peer_id
        if request.peer_id != peer_id:
            raise InvalidArgumentError("a stream has the heartbeats of one peer")
        yield request
