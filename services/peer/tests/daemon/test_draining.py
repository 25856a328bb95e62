"""How long a stopping peer waits for its downloaders."""

import asyncio
from datetime import timedelta

from minga_peer.daemon.draining import IDLE_POLLS, until_idle

LIMIT = timedelta(seconds=60)


async def test_a_stopping_peer_waits_until_its_downloaders_stay_away() -> None:
    """A moment without a request is not the end: the next one may be on its way."""
    plan = [1, 1, 0, 0, 1, 1]
    polls = 0

    def in_progress() -> int:
        nonlocal polls
        polls += 1
        return plan[polls - 1] if polls <= len(plan) else 0

    await until_idle(in_progress, LIMIT)
    assert polls == len(plan) + IDLE_POLLS


async def test_a_stopping_peer_waits_no_longer_than_the_grace() -> None:
    """A downloader that is still there finds another source, or waits until this one is back."""
    async with asyncio.timeout(LIMIT.total_seconds()):
        await until_idle(lambda: 1, timedelta(seconds=0.1))
        await until_idle(lambda: 1, timedelta(0))
