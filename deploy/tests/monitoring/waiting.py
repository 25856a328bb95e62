"""Waiting for what other processes do: a condition and a limit, never a time."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

LIMIT_SECONDS = 30.0
POLL_SECONDS = 0.05


async def eventually(holds: Callable[[], Awaitable[bool]], what: str, limit_seconds: float = LIMIT_SECONDS) -> None:
    """Returns once `holds`; fails the test after the limit."""
    try:
        async with asyncio.timeout(limit_seconds):
            while not await holds():  # noqa: ASYNC110 - the condition belongs to other processes
                await asyncio.sleep(POLL_SECONDS)
    except TimeoutError:
        pytest.fail(f"not within {limit_seconds} s: {what}")
