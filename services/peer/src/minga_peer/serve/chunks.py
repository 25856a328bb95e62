"""What both ways of serving chunks have in common: the turn, the takers named to each other, and the counting."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from minga_core.chunks import ChunkSet, Geometry
from minga_core.errors import BusyError, ContentNotHeldError
from minga_core.ids import ContentId
from minga_engine.parts.content_store import ContentStore
from minga_engine.wire.messages import SourceAddress
from minga_peer.serve.slots import RecentTakers, Turn, UploadTurns
from minga_peer.serve.spans import ServeSpans
from minga_runtime.rate_limit import RateLimit

MAX_CANDIDATES = 4096
"""Chunks looked at for one choice; a caller that wants more chooses among its first ones. Bounds the work of a call."""


class ServingMetrics(Protocol):
    """What serving counts."""

    def sent(self, payload_bytes: int, *, complete: bool) -> None:
        """A chunk went out whole; complete: of a content that is held whole here."""
        ...

    def busy(self) -> None:
        """A caller was turned away."""
        ...


@dataclass(slots=True)
class Sending:
    """A chunk that is to be sent now."""

    turn: Turn
    others: tuple[SourceAddress, ...]
    """Who else takes this content."""
    complete: bool
    """All of the content is held here."""

    @property
    def index(self) -> int | None:
        """Which chunk; None when nothing that was wanted is held."""
        return None if self.turn.index < 0 else self.turn.index


class ChunkServing:
    """Decides who is sent what and when."""

    def __init__(
        self,
        store: ContentStore,
        turns: UploadTurns,
        takers: RecentTakers,
        metrics: ServingMetrics,
        up: RateLimit,
        spans: ServeSpans | None = None,
    ) -> None:
        """spans: None where nothing is traced."""
        self.store = store
        self.up = up
        self._turns = turns
        self._takers = takers
        self._metrics = metrics
        self._spans = spans

    def wanted(self, content_id: ContentId, ranges: Sequence[tuple[int, int]]) -> ChunkSet:
        """The chunks that ranges from outside mean. Raises InvalidArgumentError, ContentNotHeldError."""
        held = self.store.held(content_id)
        if held is None:
            raise ContentNotHeldError(f"{content_id.short} is not held here")
        return ChunkSet.from_ranges(held.count, ranges)

    def others(self, content_id: ContentId, caller: SourceAddress | None) -> tuple[SourceAddress, ...]:
        """Who else has taken chunks of a content lately."""
        return tuple(self._takers.others(content_id, caller))

    @asynccontextmanager
    async def sending(
        self,
        content_id: ContentId,
        wanted: ChunkSet,
        caller: SourceAddress | None,
        taker: str,
        geometry: Geometry,
        *,
        host: str = "",
        traceparent: str = "",
    ) -> AsyncGenerator[Sending, None]:
        """Waits for the caller's turn; the block sends the chunk and then calls `sent`. Raises BusyError at once.
        host: where the call comes from, for its share of the turns.

        From now on the caller is named to others: it is about to have something to give. traceparent: the caller's.
        """
        bits = _first_bits(wanted.bits, MAX_CANDIDATES)
        first = (bits & -bits).bit_length() - 1
        if caller is not None:
            self._takers.note(content_id, caller)
        traced = self._spans.request(traceparent, content_id, caller) if self._spans is not None else None
        sending: Sending | None = None
        try:
            async with self._turns.turn(content_id, bits, taker, geometry.length(first), host=host) as turn:
                if traced is not None:
                    traced.granted()
                held = self.store.held(content_id)
                sending = Sending(turn, self.others(content_id, caller), held is not None and held.complete)
                yield sending
        except BusyError:
            self._metrics.busy()
            if traced is not None:
                traced.busy()
            raise
        finally:
            if traced is not None:
                traced.ended(sending.turn.sent_bytes if sending is not None else 0)

    def sent(self, sending: Sending, size_bytes: int) -> None:
        """The chunk went out whole."""
        sending.turn.sent_bytes = size_bytes
        self._metrics.sent(size_bytes, complete=sending.complete)


def _first_bits(bits: int, limit: int) -> int:
    """At most about `limit` of the lowest chunks of a bitmap."""
    if bits.bit_count() <= limit:
        return bits
    lowest = (bits & -bits).bit_length() - 1
    return bits & ((1 << (lowest + limit)) - 1)
