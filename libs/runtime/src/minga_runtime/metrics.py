"""The metrics endpoint, and what every part measures alike."""

import asyncio
import contextlib
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from minga_core.errors import AlreadyRunningError
from minga_runtime.channels import split_listen

_REQUEST_LIMIT_SECONDS = 5.0
_MAX_REQUEST_BYTES = 16 * 1024
RPC_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60)


def build_info(registry: CollectorRegistry, part: str, version: str) -> None:
    """The constant metric that tells which version runs."""
    Gauge(f"minga_{part}_build_info", "Always 1; the label tells the version.", ["version"], registry=registry).labels(
        version
    ).set(1)


class RpcMetrics:
    """Counts and times RPCs; see `grpc_errors.RpcObserver`."""

    def __init__(self, registry: CollectorRegistry, part: str) -> None:
        self._durations = Histogram(
            f"minga_{part}_rpc_duration_seconds",
            "Seconds that RPCs took, by method and status code.",
            ["method", "code"],
            buckets=RPC_BUCKETS,
            registry=registry,
        )

    def rpc_ended(self, method: str, code: str, seconds: float) -> None:
        """See RpcObserver."""
        self._durations.labels(method, code).observe(seconds)


@dataclass(slots=True)
class MetricsServer:
    """A running endpoint. `address` is host:port as bound."""

    address: str
    _server: asyncio.Server

    async def aclose(self) -> None:
        """Stops serving."""
        self._server.close()
        await self._server.wait_closed()


async def start_metrics_server(registry: CollectorRegistry, listen: str) -> MetricsServer:
    """Serves `/metrics` and `/livez` over HTTP/1.1 on host:port. Raises AlreadyRunningError for a taken port."""
    host, port = split_listen(listen)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A client that is slow or talks nonsense costs one connection for a few seconds, never more.
        with contextlib.suppress(TimeoutError, ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            async with asyncio.timeout(_REQUEST_LIMIT_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(_answer(head, registry))
                await writer.drain()
        writer.close()

    try:
        server = await asyncio.start_server(serve, host, port, limit=_MAX_REQUEST_BYTES)
    except OSError as error:
        raise AlreadyRunningError(f"cannot serve metrics on {listen}: {error.strerror}") from error
    bound_port = server.sockets[0].getsockname()[1]
    return MetricsServer(f"{host}:{bound_port}", server)


def _answer(head: bytes, registry: CollectorRegistry) -> bytes:
    method, _, rest = head.partition(b" ")
    path = rest.split(b" ", 1)[0].split(b"?", 1)[0]
    if method not in (b"GET", b"HEAD"):
        return _response("405 Method Not Allowed", b"", "text/plain", method)
    if path == b"/metrics":
        return _response("200 OK", generate_latest(registry), CONTENT_TYPE_LATEST, method)
    if path == b"/livez":
        return _response("200 OK", b"ok\n", "text/plain", method)
    return _response("404 Not Found", b"", "text/plain", method)


def _response(status: str, body: bytes, content_type: str, method: bytes) -> bytes:
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + (b"" if method == b"HEAD" else body)
