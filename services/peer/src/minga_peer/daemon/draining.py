"""The end of a peer that others are just taking something from."""

import asyncio
from collections.abc import Callable
from datetime import timedelta

POLL_SECONDS = 0.02
QUIET_SECONDS = 0.1
"""Whoever fetches has its next request out long before: after so long without any, nobody does."""


async def until_quiet(under_way: Callable[[], int], grace: timedelta) -> None:
    """Returns once nothing has been under way for a moment, or when the grace is over.

    For a peer that has left: nobody new is sent to it, and those who fetch from it may have no other source.
    """
    loop = asyncio.get_running_loop()
    quiet_since = loop.time()
    ends = quiet_since + grace.total_seconds()
    while (now := loop.time()) < ends and now - quiet_since < QUIET_SECONDS:
        if under_way():
            quiet_since = now
        await asyncio.sleep(POLL_SECONDS)
