"""The peer's metrics. Bound to a registry given from outside; every series exists at 0 from the start.

Labels are small and closed: never a peer id, a name, or a digest.
"""

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from minga_core.errors import NoSpaceError, StorageError
from minga_core.ids import PeerId
from minga_engine.swarm.events import DropReason

_HOLDERS = {True: "complete", False: "partial"}


class PeerMetrics:
    """Counts what the peer does. Implements the metric ports of transfer and chunkstore."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.sent_payload_bytes = 0
        self.received_payload_bytes = 0
        sent = Counter(
            "minga_peer_sent_bytes",
            "Payload bytes of chunks sent to others, by what this peer was: a complete holder, or a partial one.",
            ["source"],
            registry=registry,
        )
        received = Counter(
            "minga_peer_received_bytes",
            "Payload bytes of verified chunks received, by where they came from: a complete holder, a partial one, or "
            "somebody's upload.",
            ["source"],
            registry=registry,
        )
        # Children of what is counted for every chunk are made once: looking one up costs as much as counting.
        self._sent = {complete: sent.labels(_HOLDERS[complete]) for complete in _HOLDERS}
        self._received = {complete: received.labels(_HOLDERS[complete]) for complete in _HOLDERS}
        self._uploaded = received.labels("upload")
        self._hedges = Counter(
            "minga_peer_hedged_requests",
            "Chunks asked of a second source because the first was late.",
            registry=registry,
        )
        self._drops = Counter(
            "minga_peer_dropped_sources", "Sources that downloads let go of, by why.", ["reason"], registry=registry
        )
        self._disk_errors = Counter(
            "minga_peer_disk_errors",
            "Downloads and uploads that the disk ended: no space, or anything else.",
            ["reason"],
            registry=registry,
        )
        self._ratios = Histogram(
            "minga_peer_transfer_bound_ratio",
            "Time that a download took by the least it could have taken, at its best second's rate or its own limit; 1 "
            "is the best. Of downloads that fetched for a second or more.",
            buckets=(1.05, 1.1, 1.25, 1.5, 2, 3, 5, 10),
            registry=registry,
        )
        self._verification_failures = Counter(
            "minga_peer_chunk_verification_failures",
            "Chunks received that failed their digest or were not asked for.",
            registry=registry,
        )
        self._turned_away = Counter(
            "minga_peer_busy_answers", "Chunk requests answered with busy for want of a slot.", registry=registry
        )
        self._downloads = Counter(
            "minga_peer_downloads", "Downloads that ended, by outcome.", ["outcome"], registry=registry
        )
        self._download_seconds = Histogram(
            "minga_peer_download_duration_seconds",
            "Seconds from asking for a file to its being in place.",
            buckets=(0.01, 0.05, 0.1, 0.5, 1, 5, 10, 60, 300, 1800),
            registry=registry,
        )
        self._hash_cache = Counter(
            "minga_peer_hash_cache_lookups",
            "Files found on disk, by whether their digests were known.",
            ["result"],
            registry=registry,
        )
        self._hashed = Counter("minga_peer_hashed_bytes", "Bytes of shared files that were hashed.", registry=registry)
        for why in DropReason:
            self._drops.labels(why.name.lower())
        for reason in ("no_space", "other"):
            self._disk_errors.labels(reason)
        for outcome in ("done", "already_present", "failed", "cancelled"):
            self._downloads.labels(outcome)
        for result in ("hit", "miss"):
            self._hash_cache.labels(result)

    def sent(self, payload_bytes: int, *, complete: bool) -> None:
        """A chunk went out whole; complete: of a content that this peer has all of."""
        self.sent_payload_bytes += payload_bytes
        self._sent[complete].inc(payload_bytes)

    def stored(self, payload_bytes: int) -> None:
        """A chunk of an upload came in and was verified."""
        self.received_payload_bytes += payload_bytes
        self._uploaded.inc(payload_bytes)

    def received(self, source: PeerId, payload_bytes: int, *, complete: bool) -> None:
        """A chunk that was fetched came in and was verified; complete: its source has all of the content."""
        self.received_payload_bytes += payload_bytes
        self._received[complete].inc(payload_bytes)

    def hedged(self) -> None:
        """A second source was asked for a chunk."""
        self._hedges.inc()

    def dropped(self, reason: DropReason) -> None:
        """A download let go of a source."""
        self._drops.labels(reason.name.lower()).inc()

    def transferred(self, ratio_to_bound: float) -> None:
        """A download is done that lasted long enough to be compared with its best second."""
        self._ratios.observe(ratio_to_bound)

    def disk_failed(self, error: StorageError | NoSpaceError) -> None:
        """The disk ended a download or an upload."""
        self._disk_errors.labels("no_space" if isinstance(error, NoSpaceError) else "other").inc()

    def corrupt(self, source: PeerId) -> None:
        """A source sent a wrong chunk."""
        self._verification_failures.inc()

    def busy(self) -> None:
        """A caller was turned away."""
        self._turned_away.inc()

    def download_ended(self, outcome: str, seconds: float) -> None:
        """A download ended: done, already_present, failed or cancelled."""
        self._downloads.labels(outcome).inc()
        if outcome == "done":
            self._download_seconds.observe(seconds)

    def hash_cache_hits(self, count: int) -> None:
        """Files whose digests the index knew."""
        self._hash_cache.labels("hit").inc(count)

    def hash_cache_misses(self, count: int) -> None:
        """Files that had to be hashed."""
        self._hash_cache.labels("miss").inc(count)

    def hashed_bytes(self, count: int) -> None:
        """Bytes hashed."""
        self._hashed.inc(count)


STATE = {
    "minga_peer_shared_files": "Files shared whole.",
    "minga_peer_shared_bytes": "Bytes of the files shared whole.",
    "minga_peer_capacity_bytes": "Bytes that it holds at most.",
    "minga_peer_free_bytes": "Bytes that may still be stored.",
    "minga_peer_pending_hashes": "Files found but not hashed yet.",
    "minga_peer_active_serves": "Chunks being sent.",
    "minga_peer_waiting_serves": "Chunk requests that wait for their turn.",
    "minga_peer_active_downloads": "Downloads under way.",
    "minga_peer_registered": "1 while the lease lives, else 0.",
}
"""Gauges of state that exists anyway, with their help."""


class StateCollector(Collector):
    """Reads state at each scrape. readers: one for each gauge of STATE."""

    def __init__(self, readers: Mapping[str, Callable[[], float]]) -> None:
        if readers.keys() != STATE.keys():
            raise ValueError(f"readers for other gauges than STATE's: {readers.keys() ^ STATE.keys()}")
        self._readers = readers

    def collect(self) -> Iterable[Metric]:
        """See Collector."""
        for name, read in self._readers.items():
            yield GaugeMetricFamily(name, STATE[name], value=read())
