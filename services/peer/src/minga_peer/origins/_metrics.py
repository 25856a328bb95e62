"""The metrics of files of origins."""

from enum import StrEnum

from prometheus_client import CollectorRegistry, Counter

from minga_peer.origins.source import Source


class Stalled(StrEnum):
    """Who did not go on sending."""

    FETCHER = "fetcher"
    HOLDERS = "holders"
    ORIGIN = "origin"


class OriginMetrics:
    """Counts what came of files that were asked for."""

    def __init__(self, registry: CollectorRegistry) -> None:
        files = Counter(
            "minga_peer_origin_files",
            "Files of origins that were asked for, by where they were from: this machine, other peers, or the origin "
            "(upstream); failed: none came.",
            ["source"],
            registry=registry,
        )
        sizes = Counter(
            "minga_peer_origin_bytes",
            "Bytes of files of origins that were asked for and came, by where they were from: of all but upstream the "
            "origin was spared.",
            ["source"],
            registry=registry,
        )
        self._files = {source: files.labels(source.value) for source in Source}
        self._bytes = {source: sizes.labels(source.value) for source in Source}
        self._failed = files.labels("failed")
        self._received = Counter(
            "minga_peer_origin_received_bytes", "Bytes that origins have sent, wasted ones too.", registry=registry
        )
        self._evicted = Counter(
            "minga_peer_origin_evicted_bytes",
            "Bytes of files of origins that were deleted to keep to MINGA_CACHE.",
            registry=registry,
        )

        stalls = Counter(
            "minga_peer_origin_stalls",
            "Times that a file of an origin did not come on, and was got elsewhere instead, by what had stopped: "
            "fetcher (a peer that fetched it for others: another took over), holders (peers that had it: the origin "
            "was asked), or origin (it was asked for the rest).",
            ["who"],
            registry=registry,
        )
        self._stalls = {who: stalls.labels(who.value) for who in Stalled}

    def stalled(self, who: Stalled) -> None:
        """Count a file that goes on coming from elsewhere."""
        self._stalls[who].inc()

    def came(self, source: Source, size_bytes: int) -> None:
        """Count a file that is whole."""
        self._files[source].inc()
        self._bytes[source].inc(size_bytes)

    def failed(self) -> None:
        """Count a file that did not come."""
        self._failed.inc()

    def received(self, count: int) -> None:
        """Count bytes of an origin."""
        self._received.inc(count)

    def evicted(self, size_bytes: int) -> None:
        """Count a file that was deleted."""
        self._evicted.inc(size_bytes)
