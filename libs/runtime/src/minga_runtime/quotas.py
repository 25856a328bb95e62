"""Quotas: what all callers, and each of them, may have under way. A flood from one leaves room for others.

A caller is the member that its certificate names; without one it is its host (`trust.origin`), the one thing that it
cannot choose at will. Then peers that share a host, behind a NAT or on one machine, share the quota of one caller,
which is half. So do hosts of one IPv6 network (/64): each of them may use any address of it.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from ipaddress import IPv6Address, IPv6Network

from minga_core.errors import BusyError, LimitExceededError, Refusal
from minga_core.units import format_bytes

RETRY_AFTER = timedelta(seconds=1)
SECONDS_OF_DAY = 24 * 60 * 60
MAX_CALLERS = 10_000
"""Whose use of a day is remembered: some 2 MB."""


class Quota:
    """A quota of slots (or bytes), of which one caller may hold half at most. For the event loop's thread alone.

    what: plural noun for messages ("table pushes"). each: the limit of one caller, if not half.
    """

    def __init__(self, what: str, total: int, *, each: int | None = None, retry_after: timedelta = RETRY_AFTER) -> None:
        self.what = what
        self.total = total
        self.each = max(1, total // 2) if each is None else each
        self._retry_after = retry_after
        self._held: Counter[str] = Counter()
        self.held_count = 0

    @contextmanager
    def held(self, caller: str, amount: int = 1) -> Iterator[None]:
        """Hold slots for the length of the block. Raises BusyError at once when there are too few.

        A caller that holds none gets any amount, even above its limit, as long as the total allows it.
        """
        self.acquire(caller, amount)
        try:
            yield
        finally:
            self.release(caller, amount)

    def acquire(self, caller: str, amount: int = 1) -> None:
        """As `held`, until `release` is called with the same arguments."""
        held = self._held[caller]
        if held and held + amount > self.each:
            raise BusyError(
                f"{held:,} {self.what} of yours are under way already, and one caller may have {self.each:,}",
                retry_after=self._retry_after,
                refusal=Refusal.QUOTA,
            )
        if self.held_count and self.held_count + amount > self.total:
            raise BusyError(f"{self.held_count:,} {self.what} are under way", retry_after=self._retry_after)
        self._held[caller] += amount
        self.held_count += amount

    def release(self, caller: str, amount: int = 1) -> None:
        """Release the slots of a caller."""
        self.held_count -= amount
        self._held[caller] -= amount
        if not self._held[caller]:
            del self._held[caller]


class DailyQuota:
    """What each caller may use up in a day, from 0:00 to 24:00 UTC. For the event loop's thread alone.

    what: plural noun for messages. each: None for no limit. It is kept in memory: a process that starts anew begins
    at 0. Callers above MAX_CALLERS of one day share the quota of one.
    """

    def __init__(self, what: str, each: int | None, setting: str, wall: Callable[[], float] = time.time) -> None:
        self._what = what
        self._each = each
        self._setting = setting
        self._wall = wall
        self._day = -1
        self._used: Counter[str] = Counter()

    def check(self, caller: str, amount: int) -> None:
        """Raises LimitExceededError when the caller may not use so much more today."""
        self._today()
        used = self._used[self._counted(caller)]
        if self._each is not None and used + amount > self._each:
            raise LimitExceededError(
                f"{format_bytes(amount)} are too much: {caller or 'this caller'} has {format_bytes(used)} of the "
                f"{format_bytes(self._each)} of {self._what} that one may have in a day (UTC)",
                limit=self._each,
                hint=f"the quota is {self._setting} of that peer",
            )

    def use(self, caller: str, amount: int) -> None:
        """Use up an amount. Raises LimitExceededError."""
        self.check(caller, amount)
        self._used[self._counted(caller)] += amount

    @contextmanager
    def charged(self, caller: str, amount: int) -> Iterator["Charge"]:
        """Reserve an amount; what the block has not used of it is given back at its end. Raises LimitExceededError."""
        self.use(caller, amount)
        day, counted, charge = self._day, self._counted(caller), Charge()
        try:
            yield charge
        finally:
            if day == self._day:
                self._used[counted] -= max(0, amount - charge.used)

    def _counted(self, caller: str) -> str:
        return caller if caller in self._used or len(self._used) < MAX_CALLERS else ""

    def _today(self) -> None:
        day = int(self._wall() // SECONDS_OF_DAY)
        if day != self._day:
            self._day = day
            self._used.clear()


@dataclass(slots=True)
class Charge:
    """What has been used of a reserved amount."""

    used: int = 0


def host_of(address: str) -> str:
    """What quotas count an IP address by: an IPv4 address itself, an IPv6 address as its /64."""
    parsed = _ipv6(address)
    if parsed is None:
        return address
    return str(parsed.ipv4_mapped or IPv6Network((int(parsed), 64), strict=False))


def plain_address(address: str) -> str:
    """The address, but an IPv4 one without the IPv6 form that it has on a socket for both."""
    parsed = _ipv6(address)
    return str(parsed.ipv4_mapped) if parsed and parsed.ipv4_mapped else address


def _ipv6(address: str) -> IPv6Address | None:
    if ":" not in address:
        return None
    try:
        return IPv6Address(address.partition("%")[0])
    except ValueError:
        return None
