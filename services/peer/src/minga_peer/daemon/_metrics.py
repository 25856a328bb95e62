"""The peer's metrics. Bound to a registry given from outside; every series exists at 0 from the start.

Labels are small and closed: never a peer id, a name, or a digest.
"""

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from minga_core.ids import PeerId


class PeerMetrics:
    """Counts what the peer does. Implements the metric ports of transfer and chunkstore."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.sent_payload_bytes = 0
        self.received_payload_bytes = 0
        self._sent = Counter("minga_peer_sent_bytes", "Payload bytes of chunks sent to others.", registry=registry)
        self._received = Counter(
            "minga_peer_received_bytes",
            "Payload bytes of verified chunks received, by how they came.",
            ["direction"],
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
        for direction in ("fetch", "upload"):
            self._received.labels(direction)
        for outcome in ("done", "already_present", "failed", "cancelled"):
            self._downloads.labels(outcome)
        for result in ("hit", "miss"):
            self._hash_cache.labels(result)

    def sent(self, payload_bytes: int) -> None:
        """A chunk went out whole."""
        self.sent_payload_bytes += payload_bytes
        self._sent.inc(payload_bytes)

    def stored(self, payload_bytes: int) -> None:
        """A chunk of an upload came in and was verified."""
        self.received_payload_bytes += payload_bytes
        self._received.labels("upload").inc(payload_bytes)

    def received(self, source: PeerId, payload_bytes: int) -> None:
        """A chunk that was fetched came in and was verified."""
        self.received_payload_bytes += payload_bytes
        self._received.labels("fetch").inc(payload_bytes)

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


class StateCollector(Collector):
    """Reads state that exists anyway, at each scrape."""

    def __init__(self, gauges: dict[str, tuple[str, Callable[[], float]]]) -> None:
        self._gauges = gauges

    def collect(self) -> Iterable[Metric]:
        """See Collector."""
        for name, (text, read) in self._gauges.items():
            yield GaugeMetricFamily(name, text, value=read())
