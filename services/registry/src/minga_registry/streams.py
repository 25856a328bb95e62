"""Standing streams: those that live until they are old, or until the registry stops."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

JITTER = 0.2
"""Lives differ by this share, so that a fleet that came at once does not come again at once."""


class StandingStreams:
    """Ends streams in order: their handlers return, which tells the caller to open another, elsewhere if need be."""

    def __init__(self, life: timedelta, rng: random.Random | None = None) -> None:
        self._life = life
        self._rng = rng or random.Random()  # noqa: S311 - jitter, not secrets
        self._open: set[asyncio.Timeout] = set()
        self._ending = False

    @property
    def count(self) -> int:
        """Streams that stand now."""
        return len(self._open)

    @asynccontextmanager
    async def standing(self) -> AsyncIterator[None]:
        """The block is left when the stream's life is over, wherever it is just then."""
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
        """Ends those that stand, and those that come from now on."""
        self._ending = True
        now = asyncio.get_running_loop().time()
        for limit in self._open:
            limit.reschedule(now)
