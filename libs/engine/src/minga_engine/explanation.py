"""Why a download took as long as it did, as plain values for logs, traces and people.

All of it is what the downloader saw (`transfer.explaining` records it). What it cannot see (whether a source was slow
for its link, its disk or its other callers; what the network could have carried) is not guessed.
"""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from minga_core.ids import PeerId
from minga_runtime.rate_limit import BURST_SECONDS

BEST_RATE_SECONDS = 1.0
"""Window of the best rate, when fetching takes as long."""
BUSY_SECONDS_TO_RANK = 0.2
"""A source that sent nothing is called slow only when it had requests to answer for so long."""
EVEN_SHARE = 0.8
"""A source with that share of the median rate, or more, is as fast as the others."""
BUSY_SHARE = 0.25
"""Busy answers for each chunk that came, from which on they are what made a source slow."""
QUEUE_SHARE = 0.5
"""Share of a source's time spent waiting for it to begin, from which on that is what made it slow."""


class Phase(StrEnum):
    """Where a download's time goes, in order.

    >>> minga.Explanation(phase_seconds={minga.Phase.FETCHING: 1.5}).phase_seconds[minga.Phase.FETCHING]
    1.5
    """

    LOCATING = "locating"
    MANIFEST = "manifest"
    WAITING = "waiting"  # no source was connected
    FETCHING = "fetching"
    FINISHING = "finishing"  # sync and rename


class WaitCause(StrEnum):
    """Why no byte came for a while.

    >>> minga.Explanation(waited_seconds={minga.WaitCause.BUSY: 0.7}).waited_seconds[minga.WaitCause.BUSY]
    0.7
    """

    QUEUE = "queue"  # requests were out, and no source had begun to answer one
    SILENCE = "silence"  # sources had begun to send, and sent nothing more
    BUSY = "busy"  # every source had answered that it has no slot
    NOTHING_NEW = "nothing_new"  # sources were connected, and none had a chunk that was still missing
    NO_SOURCE = "no_source"  # no source was known, or all were lost or banned
    LIMIT = "limit"  # the download limit of this machine
    DISK = "disk"  # all that was requested had come, and was being verified and written


class SlowReason(StrEnum):
    """The weightiest of what is known of why a source was the slowest, weightiest first.

    >>> minga.SlowReason("queue")
    <SlowReason.QUEUE: 'queue'>
    """

    CORRUPT = "corrupt"  # it sent wrong bytes and was banned
    LOST = "lost"  # its connection broke
    DROPPED = "dropped"  # it was dropped: no progress, or what it has changed
    EVEN = "even"  # it was about as fast as the others
    BUSY = "busy"  # it answered busy, again and again
    QUEUE = "queue"  # most of the time that it had a request passed before it began to answer: it served others first
    RATE = "rate"  # it sent slowly; the reason cannot be seen from here
    PARTIAL = "partial"  # it was still fetching the file itself


@dataclass(slots=True)
class SourceShare:
    """One source's part in a download.

    >>> minga.SourceShare(minga.parse_peer_id("peer-1"), received_bytes=6_000_000, working_seconds=2.0).rate
    3000000.0
    """

    peer_id: PeerId
    complete: bool = False
    """It has the whole content; false: it was fetching it too."""
    same_zone: bool = False
    received_bytes: int = 0
    """Payload of its chunks that were kept."""
    chunk_count: int = 0
    working_seconds: float = 0.0
    """How long it had at least one request to answer."""
    queued_seconds: float = 0.0
    """Of that, how long it had not begun to answer any of them."""
    busy_answers: int = 0
    losses: int = 0
    """Requests that ended with a broken connection."""
    corrupt_chunks: int = 0
    drops: dict[str, int] = field(default_factory=dict)
    """How often the scheduler dropped it, by reason."""

    @property
    def rate(self) -> float:
        """Bytes a second while it had requests to answer; 0 when it never had."""
        return self.received_bytes / self.working_seconds if self.working_seconds > 0 else 0.0


@dataclass(frozen=True, slots=True)
class SlowSource:
    """The slowest of several sources.

    >>> rates = {"peer-1": 90, "peer-2": 30, "peer-3": 95}
    >>> sources = tuple(
    ...     minga.SourceShare(minga.parse_peer_id(peer_id), True, received_bytes=rate, working_seconds=1.0)
    ...     for peer_id, rate in rates.items()
    ... )
    >>> slowest = minga.Explanation(sources=sources).slowest
    >>> slowest.source.peer_id, str(slowest.reason)
    ('peer-2', 'rate')
    """

    source: SourceShare
    reason: SlowReason
    share_of_median: float
    """Its rate by the median of all sources' rates."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """One download, explained. Seconds are those of this attempt.

    >>> minga.Explanation(seconds=3.0, size_bytes=200, best_rate=100.0).ratio_to_bound
    1.5
    """

    seconds: float = 0.0
    """From the request to the file in place."""
    size_bytes: int = 0
    resumed_bytes: int = 0
    """Of those, held before this attempt."""
    wasted_bytes: int = 0
    """Payload that came and was not kept: second copies, broken off and wrong chunks."""
    hedges: int = 0
    """Chunks requested from a second source because the first was late."""
    duplicates: int = 0
    """Chunks that came twice."""
    sources: tuple[SourceShare, ...] = ()
    """All that were asked, most bytes first."""
    phase_seconds: Mapping[Phase, float] = field(default_factory=dict)
    waited_seconds: Mapping[WaitCause, float] = field(default_factory=dict)
    """Time while fetching in which no byte came, by cause. Shorter than half a second, or than two messages take at the
    best rate, is no pause."""
    longest_wait_seconds: float = 0.0
    best_rate: float = 0.0
    """Most payload that came within one second, in bytes per second; the average when fetching was shorter."""
    limit_rate: float = 0.0
    """The download limit of this machine in bytes per second; 0: none."""

    @property
    def fetched_bytes(self) -> int:
        """Payload that this attempt had to get."""
        return self.size_bytes - self.resumed_bytes

    @property
    def limited(self) -> bool:
        """Whether the limit, and not what came in the best second, is the bound."""
        return self._limit_seconds > self._best_seconds

    @property
    def bound_seconds(self) -> float:
        """How long the bytes take at the best rate seen here, or at the limit when that takes longer; 0: unknown.

        A lower bound only in that sense: had every second been like the best one. It says nothing of what sources and
        network could have given, and a download that was slow throughout is close to its bound.
        """
        return max(self._best_seconds, self._limit_seconds)

    @property
    def _best_seconds(self) -> float:
        return self.fetched_bytes / self.best_rate if self.best_rate > 0 else 0.0

    @property
    def _limit_seconds(self) -> float:
        """A burst passes the limit at once."""
        return self.fetched_bytes / self.limit_rate - BURST_SECONDS if self.limit_rate > 0 else 0.0

    @property
    def ratio_to_bound(self) -> float | None:
        """All of this attempt's seconds by `bound_seconds`; None when nothing was fetched.

        1.0: every second was like the best. What is above is time spent on locating, waiting, uneven sources, bytes
        that were not kept, sync.
        """
        return self.seconds / self.bound_seconds if self.bound_seconds > 0 else None

    @property
    def lasting_ratio(self) -> float | None:
        """`ratio_to_bound`, at least 1, of a download that fetched for a whole second or more; None of any other.

        A shorter one has no best second, and its ratio shows round trips and syncs alone: 3.2 was measured for 300 KB
        on loopback, where all was well. A limit's last piece may bring the ratio below 1.
        """
        ratio = self.ratio_to_bound
        if ratio is None or self.phase_seconds.get(Phase.FETCHING, 0.0) < BEST_RATE_SECONDS:
            return None
        return max(1.0, ratio)

    @property
    def slowest(self) -> SlowSource | None:
        """The slowest of the sources that were asked for enough to be compared; None when there are not two of them."""
        ranked = [
            item
            for item in self.sources
            if item.working_seconds >= BUSY_SECONDS_TO_RANK or (item.chunk_count and item.working_seconds > 0)
        ]
        if len(ranked) < 2:
            return None
        slowest = min(ranked, key=lambda item: item.rate)
        median = statistics.median(item.rate for item in ranked)
        share = slowest.rate / median if median > 0 else 1.0
        return SlowSource(slowest, _reason(slowest, share), share)

    def log_fields(self) -> dict[str, Any]:
        """Stable names and plain values for one log line; the five largest sources."""
        ratio, slowest = self.ratio_to_bound, self.slowest
        totals = {
            name: sum(getattr(source, name) for source in self.sources)
            for name in ("corrupt_chunks", "busy_answers", "losses")
        }
        return totals | {
            "seconds": round(self.seconds, 3),
            "size_bytes": self.size_bytes,
            "resumed_bytes": self.resumed_bytes,
            "wasted_bytes": self.wasted_bytes,
            "sources": sum(source.chunk_count > 0 for source in self.sources),
            "bytes_by_source": {item.peer_id: item.received_bytes for item in self.sources[:5] if item.chunk_count},
            "phase_seconds": _rounded(self.phase_seconds),
            "waited_seconds_by_cause": _rounded(self.waited_seconds),
            "longest_wait_seconds": round(self.longest_wait_seconds, 3),
            "bound_seconds": round(self.bound_seconds, 3),
            "ratio_to_bound": None if ratio is None else round(ratio, 2),
            "best_rate_bytes_per_second": int(self.best_rate),
            "limit_bytes_per_second": int(self.limit_rate),
            "slowest_source": slowest.source.peer_id if slowest else None,
            "slowest_reason": str(slowest.reason) if slowest else None,
            "hedges": self.hedges,
            "duplicates": self.duplicates,
        }


def _rounded(seconds: Mapping[Any, float]) -> dict[str, float]:
    """Durations to the millisecond, without those that are shorter."""
    return {str(what): round(part, 3) for what, part in seconds.items() if part >= 0.001}


def _reason(source: SourceShare, share_of_median: float) -> SlowReason:
    known = {
        SlowReason.CORRUPT: source.corrupt_chunks > 0,
        SlowReason.LOST: source.losses > 0,
        SlowReason.DROPPED: bool(source.drops),
        SlowReason.EVEN: share_of_median >= EVEN_SHARE,
        SlowReason.BUSY: source.busy_answers > BUSY_SHARE * source.chunk_count,
        SlowReason.QUEUE: source.queued_seconds > QUEUE_SHARE * source.working_seconds,
        SlowReason.RATE: source.complete,
        SlowReason.PARTIAL: True,
    }
    return next(reason for reason, holds in known.items() if holds)
