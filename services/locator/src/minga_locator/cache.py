"""A short read cache with single flight: many who ask the same at once cost one look-up."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from minga_core.clock import Clock
from minga_runtime.tasks import TaskOwner

MAX_AGE_SECONDS = 0.5
"""An answer is at most this much older than the directory. (design: ≤ 500 ms)"""
MAX_ENTRIES = 10_000

T = TypeVar("T")


@dataclass(slots=True)
class _Entry:
    task: "asyncio.Task[Any]"
    begun_at: float


class ReadCache:
    """Remembers answers for a moment. Errors are handed to all who waited, and not remembered."""

    def __init__(
        self,
        clock: Clock,
        *,
        max_age_seconds: float = MAX_AGE_SECONDS,
        max_entries: int = MAX_ENTRIES,
        on_lookup: Callable[[bool], None] = lambda hit: None,
    ) -> None:
        self._clock = clock
        self._max_age_seconds = max_age_seconds
        self._max_entries = max_entries
        self._on_lookup = on_lookup
        self._entries: OrderedDict[Hashable, _Entry] = OrderedDict()
        # An error of a flight is its waiters' to hear, not the log's.
        self._flights = TaskOwner(lambda error: None)

    async def get(self, key: Hashable, look_up: Callable[[], Awaitable[T]]) -> T:
        """The answer for a key: a fresh one that is known, the one being looked up, or a new look-up's.

        A waiter that is cancelled leaves the flight to the others.
        """
        entry = self._entries.get(key)
        fresh = entry is not None and self._clock.monotonic() - entry.begun_at < self._max_age_seconds
        self._on_lookup(fresh)
        if entry is None or not fresh:
            entry = self._begin(key, look_up)
        return cast(T, await asyncio.shield(entry.task))

    def _begin(self, key: Hashable, look_up: Callable[[], Awaitable[T]]) -> _Entry:
        async def fly() -> T:
            try:
                return await look_up()
            except BaseException:
                if self._entries.get(key) is entry:
                    del self._entries[key]
                raise

        entry = _Entry(self._flights.start(fly(), "lookup"), self._clock.monotonic())
        self._entries[key] = entry
        self._entries.move_to_end(key)
        while len(self._entries) > self._max_entries:
            self._entries.popitem(last=False)
        return entry

    async def aclose(self) -> None:
        """Ends every flight."""
        await self._flights.aclose()
