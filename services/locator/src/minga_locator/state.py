"""What the routes share."""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import TypeVar

from fastapi import Request

from minga_core.errors import StoreUnavailableError
from minga_directory.ports import DirectoryReader
from minga_locator._metrics import LocatorMetrics
from minga_locator.cache import ReadCache

REQUEST_SECONDS = 3.0
"""No request waits longer for the store: one that is slower than this is away."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class LocatorState:
    """Made once for an app."""

    reader: DirectoryReader
    cache: ReadCache
    metrics: LocatorMetrics

    async def limited(self, work: Awaitable[T], seconds: float = REQUEST_SECONDS) -> T:
        """`work`'s result. Raises StoreUnavailableError when it takes longer than the limit."""
        try:
            async with asyncio.timeout(seconds):
                return await work
        except TimeoutError:
            raise StoreUnavailableError(f"the store did not answer within {seconds:g} s") from None


def state_of(request: Request) -> LocatorState:
    """The app's state."""
    state: LocatorState = request.app.state.locator
    return state
