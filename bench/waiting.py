"""Waiting for a condition, with a deadline, while a process lives."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from bench.netns import LabError
from bench.process import HostProcess

POLL_SECONDS = 0.02


async def until(
    holds: Callable[[], Awaitable[bool]], limit_seconds: float, what: str, process: HostProcess | None = None
) -> None:
    """Returns once `holds`. Raises LabError after the limit, or when the process ends before."""
    deadline = time.monotonic() + limit_seconds
    while not await holds():
        if process is not None:
            process.check()
        if time.monotonic() > deadline:
            raise LabError(f"not within {limit_seconds:g} s: {what}")
        await asyncio.sleep(POLL_SECONDS)
