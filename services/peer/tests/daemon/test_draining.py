"""How long a peer that is told to stop waits for those who fetch from it."""

import asyncio
from datetime import timedelta

from minga_peer.daemon.draining import QUIET_SECONDS, until_quiet

LIMIT = timedelta(seconds=10)


class Transfers:
    """What is under way, by a plan: one figure for each time that is asked, the last one for ever."""

    def __init__(self, *plan: int) -> None:
        self._plan = list(plan)
        self.asked = 0

    def under_way(self) -> int:
        """The next figure."""
        self.asked += 1
        return self._plan.pop(0) if len(self._plan) > 1 else self._plan[0]


async def test_a_peer_that_nobody_fetches_from_ends_after_a_moment() -> None:
    """Not after the grace: that is for others."""
    started = asyncio.get_running_loop().time()
    await until_quiet(Transfers(0).under_way, LIMIT)
    assert asyncio.get_running_loop().time() - started < 10 * QUIET_SECONDS


async def test_it_waits_until_the_last_one_is_done() -> None:
    """A moment without a request is not the end: the next one may be on its way."""
    transfers = Transfers(1, 1, 0, 0, 1, 1, 0)
    await until_quiet(transfers.under_way, LIMIT)
    assert transfers.asked > 7


async def test_it_waits_no_longer_than_the_grace() -> None:
    """Whoever still fetches then finds another source, or waits until this one is back."""
    async with asyncio.timeout(LIMIT.total_seconds()):
        await until_quiet(Transfers(1).under_way, timedelta(seconds=0.1))
        await until_quiet(Transfers(1).under_way, timedelta(0))
