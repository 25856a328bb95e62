"""Quotas: what all callers, and each of them, may have under way. A flood from one leaves room for others.

A caller is its host, the one thing that it cannot choose at will. Peers that share a host, behind a NAT or on one
machine, share the quota of one caller, which is half. So do hosts of one IPv6 network (/64): each of them may use any
address of it.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from ipaddress import IPv6Address, IPv6Network

from minga_core.errors import BusyError

RETRY_AFTER = timedelta(seconds=1)


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
            raise BusyError(f"{held:,} {self.what} of yours are under way already", retry_after=self._retry_after)
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


def caller_of(peer: str) -> str:
    """The caller in a gRPC peer string, as in `ipv4:10.0.0.1:4711`, `ipv6:%5B::1%5D:4711` or `unix:`; see `host_of`."""
    kind, _, place = peer.partition(":")
    if kind not in ("ipv4", "ipv6"):
        return kind
    return host_of(place.rpartition(":")[0].removeprefix("%5B").removesuffix("%5D"))


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
