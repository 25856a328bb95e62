"""The metrics endpoint, and the metrics that every part has."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Gauge, Histogram, ProcessCollector, disable_created_metrics
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from minga_runtime.listening import bound_address
from minga_runtime.sockets import listen_tcp

log = logging.getLogger(__name__)

# A `…_created` series beside each counter and histogram would double their number.
disable_created_metrics()  # type: ignore[no-untyped-call]

_REQUEST_LIMIT_SECONDS = 5.0
_MAX_REQUEST_BYTES = 16 * 1024
_MAX_CONNECTIONS = 32
"""More than any number of scrapers; further connections are closed at once."""
RPC_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60)
STORE_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)


def describe_process(registry: CollectorRegistry, part: str, version: str) -> None:
    """Register the metrics of the process: its version, its tasks, and the standard `process_*` metrics (processor,
    memory, open files; on Linux)."""
    ProcessCollector(registry=registry)
    Gauge(
        f"minga_{part}_tasks",
        "Asyncio tasks under way; a number that only grows is a leak.",
        registry=registry,
    ).set_function(_task_count)
    Gauge(f"minga_{part}_build_info", "Always 1; the label is the version.", ["version"], registry=registry).labels(
        version
    ).set(1)


def describe_certificate(registry: CollectorRegistry, part: str, expires: Callable[[], float]) -> None:
    """Register how long this process is still a member. expires: when its certificate ends, in Unix time."""
    Gauge(
        f"minga_{part}_certificate_expiry_seconds",
        "Seconds until the certificate of this process ends; below 0 it is refused everywhere. In secure networks.",
        registry=registry,
    ).set_function(lambda: expires() - time.time())


def _task_count() -> float:
    """Tasks of the event loop that answers the scrape; 0 outside of one."""
    try:
        return len(asyncio.all_tasks())
    except RuntimeError:
        return 0


class RpcMetrics:
    """Counts and times RPCs; see `grpc_errors.RpcObserver`.

    methods: RPCs whose series exist at 0 from the start, so that their first call shows in a rate.
    """

    def __init__(self, registry: CollectorRegistry, part: str, methods: Iterable[str] = ()) -> None:
        self._durations = Histogram(
            f"minga_{part}_rpc_duration_seconds",
            "Seconds that RPCs took, by method and status code; a stream counts once it has ended.",
            ["method", "code"],
            buckets=RPC_BUCKETS,
            registry=registry,
        )
        # `labels` costs as much as `observe`, so its results are kept: methods and codes are few.
        self._children = {(method, "OK"): self._durations.labels(method, "OK") for method in methods}

    def rpc_ended(self, method: str, code: str, seconds: float) -> None:
        """See RpcObserver."""
        child = self._children.get((method, code))
        if child is None:
            child = self._children[method, code] = self._durations.labels(method, code)
        child.observe(seconds)


class StoreMetrics:
    """Counts and times calls to the store; see `minga_directory.StoreObserver`."""

    def __init__(
        self, registry: CollectorRegistry, part: str, operations: Iterable[str], outcomes: Iterable[str]
    ) -> None:
        durations = Histogram(
            f"minga_{part}_redis_duration_seconds",
            "Seconds that calls to Redis took, by operation of the directory and outcome.",
            ["operation", "outcome"],
            buckets=STORE_BUCKETS,
            registry=registry,
        )
        ends = list(outcomes)
        self._children = {(name, end): durations.labels(name, end) for name in operations for end in ends}

    def store_called(self, operation: str, outcome: str, seconds: float) -> None:
        """See StoreObserver."""
        self._children[operation, outcome].observe(seconds)


class MetricsServer:
    """A running endpoint, made by `start_metrics_server`. `address` is host:port as bound."""

    def __init__(self, registry: CollectorRegistry, ready: Callable[[], bool]) -> None:
        self.address = ""
        self._registry = registry
        self._ready = ready
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()

    async def start(self, listen: str) -> None:
        """Bind and serve. Raises what `listen_tcp` raises."""
        listener = await asyncio.to_thread(listen_tcp, listen)
        self._server = await asyncio.start_server(self._accept, sock=listener, limit=_MAX_REQUEST_BYTES)
        self.address = bound_address(listen, self._server.sockets[0].getsockname()[1])

    async def aclose(self) -> None:
        """Stop serving and close every connection."""
        if self._server is not None:
            self._server.close()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._serving) >= _MAX_CONNECTIONS:
            writer.close()
            return
        task = asyncio.create_task(self._serve(reader, writer), name="metrics_request")
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # `drain` returns when everything is sent: what is left at the end belongs to a client that does not read.
        writer.transport.set_write_buffer_limits(0)
        try:
            # A slow or malformed client costs one connection for a few seconds.
            with contextlib.suppress(
                TimeoutError, ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError
            ):
                async with asyncio.timeout(_REQUEST_LIMIT_SECONDS):
                    head = await reader.readuntil(b"\r\n\r\n")
                    writer.write(self._answer(head))
                    await writer.drain()
                    writer.close()
        finally:
            # Without effect on a connection that was closed above, where nothing is left to send.
            writer.transport.abort()

    def _answer(self, head: bytes) -> bytes:
        method, _, rest = head.partition(b" ")
        path = rest.split(b" ", 1)[0].split(b"?", 1)[0]
        if method not in (b"GET", b"HEAD"):
            return _response("405 Method Not Allowed", b"", "text/plain", method)
        if path == b"/metrics":
            return self._metrics(method)
        if path == b"/livez":
            return _response("200 OK", b"ok\n", "text/plain", method)
        if path == b"/readyz":
            if self._ready():
                return _response("200 OK", b"ok\n", "text/plain", method)
            return _response("503 Service Unavailable", b"not ready\n", "text/plain", method)
        return _response("404 Not Found", b"", "text/plain", method)

    def _metrics(self, method: bytes) -> bytes:
        try:
            body = generate_latest(self._registry)
        except Exception:
            # A bug in a part's collector must show as a failed scrape and in the log.
            log.exception("metrics_failed")
            return _response("500 Internal Server Error", b"", "text/plain", method)
        return _response("200 OK", body, CONTENT_TYPE_LATEST, method)


async def start_metrics_server(
    registry: CollectorRegistry, listen: str, ready: Callable[[], bool] = lambda: True
) -> MetricsServer:
    """Serve `/metrics`, `/livez` and `/readyz` over HTTP/1.1 on host:port (port 0 for any free one), without TLS: for
    scrapers and probes. The caller closes it.

    ready: whether `/readyz` answers 200, and not 503. Raises what `listen_tcp` raises.
    """
    server = MetricsServer(registry, ready)
    await server.start(listen)
    return server


def _response(status: str, body: bytes, content_type: str, method: bytes) -> bytes:
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + (b"" if method == b"HEAD" else body)
