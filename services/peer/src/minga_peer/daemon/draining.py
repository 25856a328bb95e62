"""How long a peer that has left goes on serving those that are downloading from it."""

import asyncio
from collections.abc import Callable
from datetime import timedelta

POLL_SECONDS = 0.02
IDLE_POLLS = 5
"""A downloader sends its next request well within this many polls: after so many without any, none is left."""


async def until_idle(in_progress: Callable[[], int], grace: timedelta) -> None:
    """Return once nothing has been in progress for IDLE_POLLS, or when the grace is over.

    No new downloader is sent to a peer that has left, and those that download from it may have no other source.
    """
    loop = asyncio.get_running_loop()
    ends, idle_polls = loop.time() + grace.total_seconds(), 0
    while loop.time() < ends and idle_polls < IDLE_POLLS:
        idle_polls = 0 if in_progress() else idle_polls + 1
        await asyncio.sleep(POLL_SECONDS)
