"""Back-pressure: what callers may have at once, in all and each, so that one that floods leaves room for the others.

A caller is known by its host: it is the one thing that it cannot choose at will. Peers that share a host, behind a NAT
or on somebody's laptop, share what one host may have, which is half.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from minga_core.errors import BusyError

RETRY_AFTER = timedelta(seconds=1)


class Shares:
    """So many slots (or bytes), of which no caller may hold more than half. For the event loop's thread alone.

    what: for people, in the plural ("table pushes"). each: what one caller may hold, if not half.
    """

    def __init__(self, what: str, total: int, *, each: int | None = None, retry_after: timedelta = RETRY_AFTER) -> None:
        self.what = what
        self.total = total
        self.each = max(1, total // 2) if each is None else each
        self._retry_after = retry_after
        self._held: Counter[str] = Counter()
        self.taken_count = 0

    @contextmanager
    def taken(self, caller: str, amount: int = 1) -> Iterator[None]:
        """Slots for the length of the block. Raises BusyError at once when there are not so many.

        A caller that holds none gets what it asks for as long as the others leave room, however much it is.
        """
        self.take(caller, amount)
        try:
            yield
        finally:
            self.give_back(caller, amount)

    def take(self, caller: str, amount: int = 1) -> None:
        """As `taken`, until `give_back` is called with the same."""
        held = self._held[caller]
        if held and held + amount > self.each:
            raise BusyError(f"{held:,} {self.what} of yours are being taken already", retry_after=self._retry_after)
        if self.taken_count and self.taken_count + amount > self.total:
            raise BusyError(f"{self.taken_count:,} {self.what} are being taken", retry_after=self._retry_after)
        self._held[caller] += amount
        self.taken_count += amount

    def give_back(self, caller: str, amount: int = 1) -> None:
        """What the caller took."""
        self.taken_count -= amount
        self._held[caller] -= amount
        if not self._held[caller]:
            del self._held[caller]


def caller_of(peer: str) -> str:
    """The host in what `ServicerContext.peer()` gives (`ipv4:10.0.0.1:4711`, `ipv6:%5B::1%5D:4711`, `unix:`)."""
    kind, _, place = peer.partition(":")
    return f"{kind}:{place.rpartition(':')[0]}" if kind in ("ipv4", "ipv6") else kind
