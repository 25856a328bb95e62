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
from minga_locator.limits import Limits

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class LocatorState:
    """Made once for an app."""

    reader: DirectoryReader
    cache: ReadCache
    metrics: LocatorMetrics
    limits: Limits

    async def limited(self, work: Awaitable[T], seconds: float | None = None) -> T:
        """`work`'s result. Raises StoreUnavailableError when it takes longer than `seconds`, or a request's limit."""
        seconds = self.limits.request_seconds if seconds is None else seconds
        try:
            async with asyncio.timeout(seconds):
                return await work
        except TimeoutError:
            raise StoreUnavailableError(f"the store did not answer within {seconds:g} s") from None


def state_of(request: Request) -> LocatorState:
    """The app's state."""
    state: LocatorState = request.app.state.locator
    return state
