"""The gateway's metrics."""

from prometheus_client import CollectorRegistry, Counter, Gauge

METHODS = ("GET", "HEAD", "PUT", "DELETE", "POST", "PATCH", "OPTIONS")
SOURCES = ("local", "peers", "upstream")


class GatewayMetrics:
    """Counts what the gateway does."""

    def __init__(self, registry: CollectorRegistry) -> None:
        family = Counter(
            "minga_peer_gateway_requests",
            "Requests to the HTTP gateway, by method and the first digit of the status; 0 when the client went before.",
            ["method", "status"],
            registry=registry,
        )
        self._requests = {
            (method, digit): family.labels(method, f"{digit}xx" if digit else "0")
            for method in (*METHODS, "other")
            for digit in (0, 2, 3, 4, 5)
        }
        sent = Counter(
            "minga_peer_gateway_sent_bytes",
            "Payload bytes that the HTTP gateway has sent, by where the content was when it was opened: all of it on "
            "this machine, on other peers too, or at its origin.",
            ["source"],
            registry=registry,
        )
        self._sent = {source: sent.labels(source) for source in SOURCES}
        self._received = Counter(
            "minga_peer_gateway_received_bytes", "Payload bytes of uploads to the HTTP gateway.", registry=registry
        )
        self._active = Gauge("minga_peer_gateway_active_requests", "Requests under way.", registry=registry)

    def started(self) -> None:
        """Count a request that begins."""
        self._active.inc()

    def ended(self, method: str, status: int) -> None:
        """Count a request that ends. status: 0 when nothing was answered."""
        self._active.dec()
        known = method if method in METHODS else "other"
        self._requests[known, status // 100].inc()

    def sent(self, source: str, count: int) -> None:
        """Count payload sent."""
        self._sent[source].inc(count)

    def received(self, count: int) -> None:
        """Count payload received."""
        self._received.inc(count)
