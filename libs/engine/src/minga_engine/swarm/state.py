"""What the scheduler knows: chunks held, sources and what they have, requests in flight. Never touches a socket.

A source::

    RESERVE ──connect──► CONNECTED ──lost, stalled, not held──► BACKING OFF ──► RESERVE
                              └──────────corrupt──────────────► BANNED
"""

import math
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field

from minga_core.chunks import ChunkSet, Geometry
from minga_core.ids import PeerId
from minga_engine.swarm.chunk_counts import ChunkCounts

_WINDOW_BITS = 1024
_WINDOW = (1 << _WINDOW_BITS) - 1


def members(bits: int, limit: int = sys.maxsize) -> list[int]:
    """Indexes of the bits that are set, ascending, and so many at most."""
    found: list[int] = []
    first = 0
    while bits and len(found) < limit:
        window = bits
        if bits.bit_length() > _WINDOW_BITS:
            # Each step on the whole integer would cost as much as there are chunks, up to a million.
            skipped = (bits & -bits).bit_length() - 1
            first += skipped
            bits >>= skipped
            window = bits & _WINDOW
        while window:
            found.append(first + (window & -window).bit_length() - 1)
            window &= window - 1
        bits >>= _WINDOW_BITS
        first += _WINDOW_BITS
    return found[:limit]


def bitmap_of(indexes: Iterable[int], count: int) -> int:
    """The bitmap of those of `count` chunks."""
    bitmap = bytearray(count // 8 + 1)
    for index in indexes:
        bitmap[index >> 3] |= 1 << (index & 7)
    return int.from_bytes(bitmap, "little")


@dataclass(slots=True)
class Rate:
    """Bytes a second, averaged with an exponential memory; 0 until something came."""

    memory_seconds: float
    value: float = 0.0
    _since: float | None = None
    _bytes: int = 0

    def begin(self, now: float) -> None:
        """The source has work from now on."""
        if self._since is None:
            self._since = now

    def idle(self, now: float) -> None:
        """The source has no work any more: from now on time does not count."""
        self._settle(now)
        self._since = None

    def add(self, count: int, now: float) -> None:
        """Bytes came. Settles every tenth of the memory."""
        self._bytes += count
        if self._since is not None and now - self._since >= self.memory_seconds / 10:
            self._settle(now)
            self._since = now

    def _settle(self, now: float) -> None:
        if self._since is None:
            return
        seconds = max(now - self._since, 1e-3)
        if self._bytes:
            measured = self._bytes / seconds
            weight = 1.0 if self.value == 0 else 1 - math.exp(-seconds / self.memory_seconds)
            self.value += weight * (measured - self.value)
        self._bytes = 0


@dataclass(slots=True)
class Source:
    """One peer that has, or is getting, the content."""

    peer_id: PeerId
    complete: bool
    same_zone: bool
    rate: Rate
    bits: int = 0
    """Chunks it is known to have."""
    connected: bool = False
    outstanding: set[int] = field(default_factory=set)
    """Ids of its requests in flight."""
    last_progress: float = 0.0
    """When bytes or an answer last came from it, or it got its first request."""
    banned_until: float = 0.0
    """Not to be asked before; infinite for a source that sent a wrong chunk."""
    busy_until: float = 0.0
    """It has no slot before then, as it said."""
    losses: int = 0
    """Lost or stalled connections in a row."""
    listed: bool = False
    """The directory has named it."""
    wait_seconds: float = math.inf
    """How long the last request waited there before its chunk began; infinite before the first."""

    def usable(self, now: float) -> bool:
        """Whether it may get requests."""
        return self.connected and self.banned_until <= now and self.busy_until <= now

    def in_reserve(self, now: float) -> bool:
        """Whether it may be connected."""
        return not self.connected and self.banned_until <= now


@dataclass(frozen=True, slots=True)
class Window:
    """What one reader is about to read."""

    bits: int
    """At least one chunk; the lowest comes first."""
    since: float
    """When it came to the lowest of them."""


@dataclass(slots=True)
class Request:
    """One call for one chunk."""

    source: PeerId
    candidates: int
    """Bitmap of the chunks that the source may choose among; one bit once it has chosen."""
    size_bytes: int
    """Size of the largest candidate."""
    started: float
    deadline: float
    request_id: int = 0
    received_bytes: int = 0
    hedge: bool = False
    """A second request for a chunk that another source is to send."""
    open: bool = False
    """It claims nothing until its source has chosen."""

    @property
    def chosen(self) -> bool:
        """Whether it is known which chunk comes."""
        return self.candidates & (self.candidates - 1) == 0

    @property
    def claims(self) -> int:
        """Bitmap of the chunks that no other source should be asked for meanwhile."""
        return 0 if self.open else self.candidates

    def expected_end(self, now: float) -> float:
        """When it will be done if it goes on as so far; infinite while nothing came."""
        if self.received_bytes == 0:
            return float("inf")
        elapsed = max(now - self.started, 1e-6)
        return self.started + elapsed * self.size_bytes / self.received_bytes


class RequestTable:
    """Requests in flight, by id."""

    def __init__(self) -> None:
        self._requests: dict[int, Request] = {}
        self._next_id = 1
        self.claimed = 0
        """Bitmap of chunks that some request may bring."""
        self.outstanding_bytes = 0

    def add(self, request: Request) -> Request:
        """Add a request and set its id."""
        request.request_id = self._next_id
        self._next_id += 1
        self._requests[request.request_id] = request
        self.claimed |= request.claims
        self.outstanding_bytes += request.size_bytes
        return request

    def get(self, request_id: int) -> Request | None:
        """The request, unless it has ended."""
        return self._requests.get(request_id)

    def narrow(self, request: Request, index: int) -> None:
        """Note the source's choice: the other candidates are free again."""
        released = request.claims & ~(1 << index)
        request.candidates, request.open = 1 << index, False
        self.claimed |= request.candidates
        self._release(released)

    def end(self, request_id: int) -> Request | None:
        """Remove a request; its candidates are free again unless another request claims them."""
        request = self._requests.pop(request_id, None)
        if request is not None:
            self.outstanding_bytes -= request.size_bytes
            self._release(request.claims)
        return request

    def _release(self, bits: int) -> None:
        if bits:
            # Without a call for each: this runs twice for each chunk.
            for other in self._requests.values():
                bits &= -1 if other.open else ~other.candidates
            self.claimed &= ~bits

    def of_chunk(self, index: int) -> list[Request]:
        """Requests that can bring nothing but that chunk."""
        bit = 1 << index
        return [request for request in self._requests.values() if request.candidates == bit]

    def all(self) -> list[Request]:
        """Every request in flight, oldest first."""
        return list(self._requests.values())

    def __len__(self) -> int:
        return len(self._requests)


class SwarmState:
    """Bitmaps are integers: bit i stands for chunk i."""

    def __init__(self, geometry: Geometry, held: ChunkSet, *, whole: bool = True, contended: bool = False) -> None:
        self.geometry = geometry
        self.count = geometry.chunk_count
        self.all = (1 << self.count) - 1
        self.readers: dict[int, Window] = {}
        self.contended = contended
        self._whole = whole
        self._want_rest: set[int] = set()
        self.held = held.bits
        self.held_count = len(held)
        self.sources: dict[PeerId, Source] = {}
        self.connected: dict[PeerId, Source] = {}
        self.requests = RequestTable()
        self._copies = ChunkCounts()
        """For each chunk, how many partial sources have it. Complete sources have every chunk alike."""
        self.spread_changed = False
        """Whether the current event changed `spread`, or which sources are complete."""

    @property
    def spread(self) -> int:
        """Bitmap of the chunks that some partial source has."""
        return self._copies.above(0)

    @property
    def shared(self) -> int:
        """Bitmap of the chunks that several partial sources have."""
        return self._copies.above(1)

    def rarest(self, chunks: int) -> int:
        """Those of some chunks that the fewest partial sources have. chunks: a bitmap that is not empty."""
        return self._copies.least(chunks)[1]

    @property
    def rest_wanted(self) -> bool:
        """Whether chunks are wanted that nobody is about to read."""
        return self._whole or bool(self._want_rest)

    @property
    def missing(self) -> int:
        """Bitmap of the chunks that are wanted and not held."""
        wanted = self.all
        if not self.rest_wanted:
            wanted = 0
            for window in self.readers.values():
                wanted |= window.bits
        return wanted & ~self.held

    def move_reader(self, reader: int, start: int, stop: int, now: float, *, rest: bool) -> None:
        """Note what a reader wants, if anything."""
        before = self.readers.pop(reader, None)
        bits = (1 << min(stop, self.count)) - (1 << start) if start < min(stop, self.count) else 0
        if bits:
            stays = before is not None and before.bits & -before.bits == bits & -bits
            self.readers[reader] = Window(bits, before.since if before is not None and stays else now)
        self._want_rest.discard(reader)
        if rest:
            self._want_rest.add(reader)

    @property
    def finished(self) -> bool:
        """Whether every chunk is held."""
        return self.held == self.all

    def hold(self, index: int) -> bool:
        """Add a chunk; false when it is held already."""
        bit = 1 << index
        if self.held & bit:
            return False
        self.held |= bit
        self.held_count += 1
        return True

    def set_complete(self, source: Source) -> None:
        """Note that a source has every chunk."""
        if not source.complete:
            self.set_bits(source, 0)
            self.spread_changed = True
        source.complete = True
        source.bits = self.all

    def set_partial(self, source: Source) -> None:
        """Note that a source lacks chunks: from now on its chunks are counted."""
        if source.complete:
            source.complete, source.bits, self.spread_changed = False, 0, True

    def set_bits(self, source: Source, bits: int) -> None:
        """Note what a source has."""
        if source.complete:
            source.bits = bits
            return
        before = self.spread
        self._copies.add(bits & ~source.bits)
        if lost := source.bits & ~bits:
            self._copies.remove(lost)
        self.spread_changed |= self.spread != before
        source.bits = bits
