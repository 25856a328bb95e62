"""The metrics of the mirror of image registries."""

from prometheus_client import CollectorRegistry, Counter

from minga_peer.images.requests import Kind
from minga_peer.origins.source import Source

ABSENT, FAILED = "absent", "failed"
_KINDS = ("manifest", "blob", "other")


class ImageMetrics:
    """Counts what the mirror answers."""

    def __init__(self, registry: CollectorRegistry) -> None:
        family = Counter(
            "minga_peer_image_requests",
            "Requests to the mirror of image registries, by kind and by where the answer was from: this machine, other "
            "peers, or the registry (upstream); absent: the client asks the registry; failed: nothing came, or what "
            "came was cut.",
            ["kind", "outcome"],
            registry=registry,
        )
        outcomes = (*(source.value for source in Source), ABSENT, FAILED)
        self._requests = {(kind, outcome): family.labels(kind, outcome) for kind in _KINDS for outcome in outcomes}

    def answered(self, kind: Kind | None, outcome: str) -> None:
        """Count a request. kind: None for one that is for neither."""
        self._requests["other" if kind is None else kind.name.lower(), outcome].inc()
