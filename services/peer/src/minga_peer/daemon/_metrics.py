"""The peer's metrics. Bound to a registry given from outside; every series exists at 0 from the start.

Labels are small and closed: never a peer id, a name, or a digest.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from minga_core.errors import NoSpaceError, StorageError
from minga_core.ids import PeerId
from minga_engine.swarm.events import DropReason


class PeerMetrics:
    """Counts what the peer does. Implements the metric ports of transfer, serve and share."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str) -> Counter:
            return Counter(name, text, registry=registry)

        def labelled(name: str, text: str, label: str, values: Iterable[str]) -> Mapping[str, Counter]:
            """One child for each value: looking a child up for every chunk would cost as much as counting."""
            family = Counter(name, text, [label], registry=registry)
            return {value: family.labels(value) for value in values}

        def histogram(name: str, text: str, buckets: Sequence[float]) -> Histogram:
            return Histogram(name, text, buckets=buckets, registry=registry)

        self.sent_payload_bytes = 0
        self.received_payload_bytes = 0
        self._sent = labelled(
            "minga_peer_sent_bytes",
            "Payload bytes of chunks sent to others, by what this peer was: a complete holder, or a partial one.",
            "source",
            ("complete", "partial"),
        )
        self._received = labelled(
            "minga_peer_received_bytes",
            "Payload bytes of verified chunks received, by sender: a complete holder, a partial one, or an upload.",
            "source",
            ("complete", "partial", "upload"),
        )
        self._hedges = counter(
            "minga_peer_hedged_requests", "Chunks requested from a second source because the first was late."
        )
        self._drops = labelled(
            "minga_peer_dropped_sources",
            "Sources that downloads dropped, by reason.",
            "reason",
            [why.name.lower() for why in DropReason],
        )
        self._disk_errors = labelled(
            "minga_peer_disk_errors",
            "Downloads, uploads and sent chunks that an error of the disk ended, by whether it was full.",
            "reason",
            ("no_space", "other"),
        )
        self._ratios = histogram(
            "minga_peer_transfer_bound_ratio",
            "Time of a download divided by the least it could have taken, at its best second's rate or own limit; 1 "
            "is the best. Of downloads that fetched for a second or more.",
            (1.05, 1.1, 1.25, 1.5, 2, 3, 5, 10),
        )
        self._verification_failures = counter(
            "minga_peer_chunk_verification_failures", "Chunks received that failed their digest or were not requested."
        )
        self._busy = counter("minga_peer_busy_answers", "Chunk requests answered with busy for want of a slot.")
        self._downloads = labelled(
            "minga_peer_downloads",
            "Downloads that ended, by outcome.",
            "outcome",
            ("done", "already_present", "failed", "cancelled"),
        )
        self._download_seconds = histogram(
            "minga_peer_download_duration_seconds",
            "Seconds from the request for a file until it is in place.",
            (0.01, 0.05, 0.1, 0.5, 1, 5, 10, 60, 300, 1800),
        )
        self._hash_cache = labelled(
            "minga_peer_hash_cache_lookups",
            "Files found on disk, by whether their digests were known.",
            "result",
            ("hit", "miss"),
        )
        self._hashed = counter("minga_peer_hashed_bytes", "Bytes of shared files that were hashed.")
        self._scrubbed = counter("minga_peer_scrubbed_bytes", "Bytes that the scrub has read and compared.")
        self._rechecks = labelled(
            "minga_peer_rechecked_chunks",
            "Chunks that a downloader reported as wrong, by what they were when they were read again here.",
            "result",
            ("good", "wrong"),
        )

    def sent(self, payload_bytes: int, *, complete: bool) -> None:
        """Count a chunk sent completely. complete: of a content that this peer has all of."""
        self.sent_payload_bytes += payload_bytes
        self._sent["complete" if complete else "partial"].inc(payload_bytes)

    def stored(self, payload_bytes: int) -> None:
        """Count a verified chunk of an upload."""
        self.received_payload_bytes += payload_bytes
        self._received["upload"].inc(payload_bytes)

    def received(self, source: PeerId, payload_bytes: int, *, complete: bool) -> None:
        """Count a verified chunk of a download. complete: its source has all of the content."""
        self.received_payload_bytes += payload_bytes
        self._received["complete" if complete else "partial"].inc(payload_bytes)

    def hedged(self) -> None:
        """Count a request to a second source."""
        self._hedges.inc()

    def dropped(self, reason: DropReason) -> None:
        """Count a source that a download dropped."""
        self._drops[reason.name.lower()].inc()

    def transferred(self, ratio_to_bound: float) -> None:
        """Record a download that lasted long enough to be compared with its best second."""
        self._ratios.observe(ratio_to_bound)

    def disk_failed(self, error: StorageError | NoSpaceError) -> None:
        """Count a download, an upload or a chunk being sent that an error of the disk ended."""
        self._disk_errors["no_space" if isinstance(error, NoSpaceError) else "other"].inc()

    def corrupt(self, source: PeerId) -> None:
        """Count a wrong chunk."""
        self._verification_failures.inc()

    def busy(self) -> None:
        """Count a request answered with busy."""
        self._busy.inc()

    def download_ended(self, outcome: str, seconds: float) -> None:
        """Count a download. outcome: done, already_present, failed or cancelled."""
        self._downloads[outcome].inc()
        if outcome == "done":
            self._download_seconds.observe(seconds)

    def hash_cache_hits(self, count: int) -> None:
        """Count files whose digests the index knew."""
        self._hash_cache["hit"].inc(count)

    def hash_cache_misses(self, count: int) -> None:
        """Count files that had to be hashed."""
        self._hash_cache["miss"].inc(count)

    def hashed_bytes(self, count: int) -> None:
        """Count bytes hashed."""
        self._hashed.inc(count)

    def scrubbed_bytes(self, count: int) -> None:
        """Count bytes that the scrub has read and compared."""
        self._scrubbed.inc(count)

    def chunk_rechecked(self, *, good: bool) -> None:
        """Count a chunk that a downloader refused as wrong, and that was read again here."""
        self._rechecks["good" if good else "wrong"].inc()


STATE = {
    "minga_peer_shared_files": "Complete files shared.",
    "minga_peer_shared_bytes": "Bytes of the complete files shared.",
    "minga_peer_capacity_bytes": "Bytes that this peer may hold.",
    "minga_peer_free_bytes": "Bytes that may still be stored.",
    "minga_peer_pending_hashes": "Files found but not hashed yet.",
    "minga_peer_scrub_end_timestamp_seconds": "Unix time at which the last pass of the scrub ended; 0: none has.",
    "minga_peer_active_serves": "Chunks being sent.",
    "minga_peer_waiting_serves": "Chunk requests that wait for a slot.",
    "minga_peer_active_downloads": "Downloads in progress.",
    "minga_peer_registered": "1 while the lease lives, else 0.",
}
"""Gauges of state that exists anyway, with their help texts."""


class StateCollector(Collector):
    """Reads state at each scrape. readers: one for each gauge of STATE; conditions: one for each kind of condition."""

    def __init__(
        self, readers: Mapping[str, Callable[[], float]], conditions: Mapping[str, Callable[[], float]]
    ) -> None:
        if readers.keys() != STATE.keys():
            raise ValueError(f"readers for other gauges than STATE's: {readers.keys() ^ STATE.keys()}")
        self._readers = readers
        self._conditions = conditions

    def collect(self) -> Iterable[Metric]:
        """See Collector."""
        for name, read in self._readers.items():
            yield GaugeMetricFamily(name, STATE[name], value=read())
        family = GaugeMetricFamily(
            "minga_peer_conditions",
            "Files, folders or other things that something is wrong with, by kind; 0 when nothing is. The local "
            "`minga status` names them.",
            labels=["kind"],
        )
        for kind, read in self._conditions.items():
            family.add_metric([kind], read())
        yield family
