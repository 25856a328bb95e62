"""The metrics of the mirror of a hub."""

from prometheus_client import CollectorRegistry, Counter

from minga_peer.origins.source import Source

REFUSED, FAILED = "refused", "failed"
API, METADATA, FILE = "api", "metadata", "file"


class ModelMetrics:
    """Counts what the mirror answers."""

    def __init__(self, registry: CollectorRegistry) -> None:
        family = Counter(
            "minga_peer_model_requests",
            "Requests to the mirror of a hub of models, by kind and by where the answer was from: this machine, other "
            "peers, or the hub (upstream); refused: the hub said no; failed: nothing came, or what came was cut.",
            ["kind", "outcome"],
            registry=registry,
        )
        outcomes = (*(source.value for source in Source), REFUSED, FAILED)
        self._requests = {
            (kind, outcome): family.labels(kind, outcome) for kind in (API, METADATA, FILE) for outcome in outcomes
        }

    def answered(self, kind: str, outcome: str) -> None:
        """Count a request."""
        self._requests[kind, outcome].inc()
