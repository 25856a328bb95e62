"""Limits of this peer's own traffic: payload bytes a second, up and down.

A token bucket. Tokens come in at the rate and gather for a quarter of a second at most; who wants to move bytes takes
as many, in the order of asking. A piece larger than the bucket passes once the bucket is full and leaves a debt that
later ones wait for, so that the rate holds whatever the size of the pieces:

    bytes in any time T  ≤  rate · T + burst + what the last piece was larger than the burst

For the event loop's thread alone.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from minga_core.clock import Clock, SystemClock
from minga_core.errors import InvalidArgumentError

BURST_SECONDS = 0.25
"""What gathers while nothing is moved: enough to ride out a late wake-up, too little for a link's queue to notice."""
MIN_BYTES_PER_SECOND = 64 * 1024
"""The lowest limit: below it a piece takes so long that the other side takes us for dead."""
MIN_PIECE_BYTES = 16 * 1024

Sleep = Callable[[float], Awaitable[object]]


class RateLimit:
    """A limit in bytes per second; None: unlimited, at no cost.

    Raises InvalidArgumentError for a limit below MIN_BYTES_PER_SECOND.
    """

    def __init__(self, bytes_per_second: int | None, clock: Clock | None = None, sleep: Sleep = asyncio.sleep) -> None:
        if bytes_per_second is not None and bytes_per_second < MIN_BYTES_PER_SECOND:
            raise InvalidArgumentError(f"a limit is at least {MIN_BYTES_PER_SECOND // 1024} KiB/s, or 0 for none")
        self.bytes_per_second = bytes_per_second
        self._rate = float(bytes_per_second or 0)
        self._burst = self._rate * BURST_SECONDS
        self._tokens = self._burst
        self._clock = clock or SystemClock()
        self._sleep = sleep
        self._filled_at = self._clock.monotonic()
        self._turn = asyncio.Lock()
        self.waiting_count = 0
        """Takers that wait now: above 0, the limit is what holds the traffic up."""
        self._held_seconds = 0.0
        self._held_until = 0.0

    @property
    def limited(self) -> bool:
        """Whether there is a limit."""
        return self.bytes_per_second is not None

    def piece_bytes(self, most: int) -> int:
        """The largest piece, up to `most`, with which the traffic stays even: what comes in within a burst's time."""
        return most if self.bytes_per_second is None else max(min(most, MIN_PIECE_BYTES), min(most, int(self._burst)))

    def reserve(self, count: int, now: float) -> float:
        """Takes `count` bytes from the bucket and gives the seconds to wait before moving them.

        now: monotonic seconds. Reservations come due in the order in which they are made; one's wait is at most
        `(burst + what is reserved and not yet due) / rate`.
        """
        if self.bytes_per_second is None:
            return 0.0
        self._fill(now)
        lacking = min(float(count), self._burst) - self._tokens
        self._tokens -= count
        wait = max(0.0, lacking / self._rate)
        if wait > 0:
            until = max(self._held_until, now + wait)
            self._held_seconds += until - max(self._held_until, now)
            self._held_until = until
        return wait

    def held_seconds(self, now: float) -> float:
        """How long, until now, it has held the traffic up: the time in which a reservation was not yet due."""
        return self._held_seconds - max(0.0, self._held_until - now)

    def give_back(self, count: int) -> None:
        """Undoes a reservation whose bytes are not moved after all."""
        if self.bytes_per_second is not None:
            self._tokens = min(self._burst, self._tokens + count)

    async def take(self, count: int) -> None:
        """Returns when `count` bytes may be moved; first come, first served. Cancelled, it has taken nothing.

        Only the first in line holds a reservation. The wait of each is bounded by what stands before it: the sum of
        the counts, and a burst, over the rate.
        """
        if self.bytes_per_second is None:
            return
        self.waiting_count += 1
        try:
            async with self._turn:
                wait = self.reserve(count, self._clock.monotonic())
                if wait > 0:
                    await self._wait(wait, count)
        finally:
            self.waiting_count -= 1

    async def _wait(self, seconds: float, count: int) -> None:
        try:
            await self._sleep(seconds)
        except BaseException:
            self.give_back(count)
            raise

    def _fill(self, now: float) -> None:
        passed = max(0.0, now - self._filled_at)
        self._filled_at = max(now, self._filled_at)
        self._tokens = min(self._burst, self._tokens + passed * self._rate)


@dataclass(frozen=True, slots=True)
class Limits:
    """Both limits of a process, shared by all its transfers."""

    up: RateLimit
    down: RateLimit

    @classmethod
    def of(cls, up_bytes_per_second: int, down_bytes_per_second: int, clock: Clock | None = None) -> "Limits":
        """Limits as settings have them: bytes per second, 0 for none. Raises InvalidArgumentError."""
        return cls(RateLimit(up_bytes_per_second or None, clock), RateLimit(down_bytes_per_second or None, clock))
