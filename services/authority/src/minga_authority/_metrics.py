"""The authority's metrics."""

from prometheus_client import CollectorRegistry, Counter, Gauge

from minga_authority.api import ROUTES
from minga_runtime.metrics import describe_process


class AuthorityMetrics:
    """Registers the metrics, and counts."""

    def __init__(self, registry: CollectorRegistry, version: str) -> None:
        describe_process(registry, "authority", version)
        self._requests = Counter(
            "minga_authority_requests",
            "Requests answered, by path and HTTP status.",
            ["path", "status"],
            registry=registry,
        )
        for path in ROUTES:
            self._requests.labels(path, "200")
        self._members = Gauge(
            "minga_authority_members",
            "Members whose certificate has not ended, without those that are revoked.",
            registry=registry,
        )
        self._revoked = Gauge("minga_authority_revoked", "Entries on the list of who is revoked.", registry=registry)
        self._ca_expiry = Gauge(
            "minga_authority_ca_expiry_seconds",
            "Seconds until the certificate of the CA that signs ends.",
            registry=registry,
        )

    def answered(self, path: str, status: int) -> None:
        """Count a request. path: any."""
        self._requests.labels(path if path in ROUTES else "none", str(status)).inc()

    def counted(self, members: int, revoked: int, ca_expiry_seconds: float) -> None:
        """What was found in the store."""
        self._members.set(members)
        self._revoked.set(revoked)
        self._ca_expiry.set(ca_expiry_seconds)
