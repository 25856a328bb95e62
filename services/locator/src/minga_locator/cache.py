"""A short read cache with single flight: many clients that ask the same at once cost one look-up."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from minga_core.clock import Clock
from minga_runtime.tasks import TaskOwner

MAX_AGE_SECONDS = 0.5
"""An answer is at most this much older than the directory."""
MAX_ENTRIES = 4_096

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Entry:
    flight: "asyncio.Task[Any]"
    started_at: float


class ReadCache:
    """Keeps answers for a moment, counted from the start of their look-up. For one event loop.

    An error is raised to every waiter and not kept. The oldest entry goes first: when it is too old, or when there are
    too many.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        max_entries: int = MAX_ENTRIES,
        on_lookup: Callable[[bool], None] = lambda hit: None,
    ) -> None:
        self._clock = clock
        self._max_entries = max_entries
        self._on_lookup = on_lookup
        self._entries: OrderedDict[Hashable, _Entry] = OrderedDict()
        # A flight's error is raised to its waiters, so the log need not have it.
        self._flights = TaskOwner(lambda error: None)

    async def get(
        self, key: Hashable, look_up: Callable[[], Awaitable[T]], *, keep: Callable[[T], bool] = lambda answer: True
    ) -> T:
        """The answer for a key: a kept one, that of a look-up under way, or that of a new look-up.

        keep: whether a new answer is kept. Cancelling a waiter leaves the look-up to the others.
        """
        self._drop_old()
        entry = self._entries.get(key)
        self._on_lookup(entry is not None)
        if entry is None:
            entry = self._start(key, look_up, keep)
        elif entry.flight.done():
            return cast(T, entry.flight.result())
        return cast(T, await asyncio.shield(entry.flight))

    def __len__(self) -> int:
        return len(self._entries)

    async def aclose(self) -> None:
        """Cancel every look-up under way, and with it those who wait for it."""
        await self._flights.aclose()
        self._entries.clear()

    def _start(self, key: Hashable, look_up: Callable[[], Awaitable[T]], keep: Callable[[T], bool]) -> _Entry:
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
        """Remove what is too old. The oldest come first, so this is a step or two."""
        oldest_start = self._clock.monotonic() - MAX_AGE_SECONDS
        while self._entries and next(iter(self._entries.values())).started_at <= oldest_start:
            self._entries.popitem(last=False)
