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
MAX_ENTRIES = 4_096

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Entry:
    flight: "asyncio.Task[Any]"
    begun_at: float


class ReadCache:
    """Remembers answers for a moment, counted from when their look-up began. Of one event loop.

    Errors are handed to all who waited, and not remembered. Entries go in the order in which they were begun: when they
    are too old, or when there are too many.
    """

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

    def known(self, key: Hashable) -> Any:
        """The answer for a key when there is one already, else None; then `get` counts."""
        self._drop_old()
        entry = self._entries.get(key)
        # A flight that ended badly is no entry any more.
        if entry is None or not entry.flight.done():
            return None
        self._on_lookup(True)
        return entry.flight.result()

    async def get(
        self, key: Hashable, look_up: Callable[[], Awaitable[T]], *, keep: Callable[[T], bool] = lambda answer: True
    ) -> T:
        """The answer for a key: one that is known, the one being looked up, or a new look-up's.

        keep: says of a new answer whether it is remembered. A waiter that is cancelled leaves the flight to the others.
        """
        self._drop_old()
        entry = self._entries.get(key)
        self._on_lookup(entry is not None)
        if entry is None:
            entry = self._begin(key, look_up, keep)
        return cast(T, await asyncio.shield(entry.flight))

    def __len__(self) -> int:
        return len(self._entries)

    async def aclose(self) -> None:
        """Ends every flight; those who wait for one are cancelled."""
        await self._flights.aclose()
        self._entries.clear()

    def _begin(self, key: Hashable, look_up: Callable[[], Awaitable[T]], keep: Callable[[T], bool]) -> _Entry:
        async def fly() -> T:
            kept = False
            try:
                answer = await look_up()
                kept = keep(answer)
                return answer
            finally:
                if not kept and self._entries.get(key) is entry:
                    del self._entries[key]

        entry = _Entry(self._flights.start(fly(), "lookup"), self._clock.monotonic())
        self._entries[key] = entry
        if len(self._entries) > self._max_entries:
            self._entries.popitem(last=False)
        return entry

    def _drop_old(self) -> None:
        """Forgets what is too old. The oldest stand first, so that this is a step or two."""
        oldest_begun_at = self._clock.monotonic() - self._max_age_seconds
        while self._entries and next(iter(self._entries.values())).begun_at <= oldest_begun_at:
            self._entries.popitem(last=False)
