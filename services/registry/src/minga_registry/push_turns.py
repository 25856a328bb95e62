"""Turns of table pushes: of more than this registry has memory for, some go on and the others wait.

When Redis was emptied, all peers push their whole tables at once. Refused, each would begin again and again, and send
rows that are thrown away each time: more than half of what that costs registries and peers.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

WAITING = 16
"""Pushes that may be under way or wait, for each that goes on. One that waits is a stream, of which gRPC receives
64 KiB unread."""


class PushTurns:
    """Lets `total` pushes go on at a time, half of them of one caller at most, in the order in which they came. For the
    event loop's thread alone."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._each = max(1, total // 2)
        self._held: Counter[str] = Counter()
        self._waiting: dict[asyncio.Future[None], str] = {}

    @asynccontextmanager
    async def turn(self, caller: str) -> AsyncIterator[None]:
        """Wait for a turn, which ends with the block."""
        if self._may_go_on(caller):
            self._held[caller] += 1
        else:
            await self._wait(caller)
        try:
            yield
        finally:
            self._release(caller)

    def _may_go_on(self, caller: str) -> bool:
        return self._held.total() < self._total and self._held[caller] < self._each

    async def _wait(self, caller: str) -> None:
        """Return once a turn is this caller's, which is counted as held by then."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiting[waiter] = caller
        try:
            await waiter
        except asyncio.CancelledError:
            if self._waiting.pop(waiter, None) is None:
                self._release(caller)
            raise

    def _release(self, caller: str) -> None:
        """End a turn, and give it to the first that may have it."""
        self._held[caller] -= 1
        if not self._held[caller]:
            del self._held[caller]
        following = next(
            # One that is done was cancelled in this turn of the event loop.
            (waiter for waiter, each in self._waiting.items() if not waiter.done() and self._may_go_on(each)),
            None,
        )
        if following is not None:
            self._held[self._waiting.pop(following)] += 1
            following.set_result(None)
