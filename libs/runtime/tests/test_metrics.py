"""The metrics endpoint, over real sockets."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable

import pytest
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from minga_core.errors import AlreadyRunningError
from minga_runtime import metrics
from minga_runtime.metrics import MetricsServer, RpcMetrics, describe_process, start_metrics_server


@pytest.fixture
async def endpoint() -> AsyncIterator[tuple[CollectorRegistry, MetricsServer]]:
    """A running endpoint with one metric."""
    registry = CollectorRegistry()
    describe_process(registry, "example", "1.2.3")
    server = await start_metrics_server(registry, "127.0.0.1:0")
    yield registry, server
    await server.aclose()


async def ask(server: MetricsServer, request: str) -> tuple[str, str]:
    """Status line and body of the answer."""
    host, port = server.address.rsplit(":", 1)
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request.encode())
    head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
    writer.close()
    return head.splitlines()[0], body


async def test_metrics_and_liveness_are_served(endpoint: tuple[CollectorRegistry, MetricsServer]) -> None:
    """What a scraper and a probe ask for."""
    registry, server = endpoint
    RpcMetrics(registry, "example").rpc_ended("Get", "OK", 0.003)
    status, body = await ask(server, "GET /metrics?x=1 HTTP/1.1\r\nHost: x\r\n\r\n")
    assert status == "HTTP/1.1 200 OK"
    assert 'minga_example_build_info{version="1.2.3"} 1.0' in body
    assert 'minga_example_rpc_duration_seconds_count{code="OK",method="Get"} 1.0' in body
    assert await ask(server, "GET /livez HTTP/1.1\r\n\r\n") == ("HTTP/1.1 200 OK", "ok\n")


async def test_readiness_is_that_of_the_part() -> None:
    """For probes of a part whose own port wants a certificate."""
    ready = False
    server = await start_metrics_server(CollectorRegistry(), "127.0.0.1:0", lambda: ready)
    try:
        assert await ask(server, "GET /readyz HTTP/1.1\r\n\r\n") == (
            "HTTP/1.1 503 Service Unavailable",
            "not ready\n",
        )
        ready = True
        assert await ask(server, "GET /readyz HTTP/1.1\r\n\r\n") == ("HTTP/1.1 200 OK", "ok\n")
    finally:
        await server.aclose()


@pytest.mark.parametrize(
    ("request_head", "status"),
    [
        ("GET /else HTTP/1.1\r\n\r\n", "HTTP/1.1 404 Not Found"),
        ("POST /metrics HTTP/1.1\r\n\r\n", "HTTP/1.1 405 Method Not Allowed"),
        ("nonsense\r\n\r\n", "HTTP/1.1 405 Method Not Allowed"),
        ("HEAD /livez HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK"),
    ],
)
async def test_anything_else_is_refused(
    endpoint: tuple[CollectorRegistry, MetricsServer], request_head: str, status: str
) -> None:
    """Without a body, and without an error in the log."""
    assert await ask(endpoint[1], request_head) == (status, "")


async def test_a_client_that_talks_too_much_is_cut_off(endpoint: tuple[CollectorRegistry, MetricsServer]) -> None:
    """The head of a request is bounded; others are served on."""
    host, port = endpoint[1].address.rsplit(":", 1)
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"x" * 200_000)
    # Unread bytes at the server turn its close into a reset.
    with contextlib.suppress(ConnectionResetError):
        assert await reader.read() == b""
    writer.close()
    assert (await ask(endpoint[1], "GET /livez HTTP/1.1\r\n\r\n"))[1] == "ok\n"


async def test_a_scraper_that_does_not_read_is_disconnected(
    endpoint: tuple[CollectorRegistry, MetricsServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its answer does not stay in memory once its time is over."""
    monkeypatch.setattr(metrics, "_REQUEST_LIMIT_SECONDS", 0.5)
    registry, server = endpoint
    for number in range(40):
        Gauge(f"large_{number}", "x" * 500_000, registry=registry)
    host, port = server.address.rsplit(":", 1)
    _, writer = await asyncio.open_connection(host, int(port), limit=1)
    writer.write(b"GET /metrics HTTP/1.1\r\n\r\n")

    async def write_on() -> None:
        while True:
            await asyncio.sleep(0.05)
            writer.write(b"x")
            await writer.drain()

    with pytest.raises(ConnectionError):
        await asyncio.wait_for(write_on(), 10)
    writer.close()


class Broken(Collector):
    """A collector with a bug."""

    def describe(self) -> Iterable[Metric]:
        """See Collector."""
        return []

    def collect(self) -> Iterable[Metric]:
        """See Collector."""
        raise RuntimeError("bug")


async def test_a_broken_collector_fails_the_scrape_and_not_the_process(
    endpoint: tuple[CollectorRegistry, MetricsServer],
) -> None:
    """It is a 500 and a line in the log."""
    registry, server = endpoint
    registry.register(Broken())
    assert (await ask(server, "GET /metrics HTTP/1.1\r\n\r\n"))[0] == "HTTP/1.1 500 Internal Server Error"
    assert (await ask(server, "GET /livez HTTP/1.1\r\n\r\n"))[1] == "ok\n"


async def test_a_port_in_use_is_an_error(endpoint: tuple[CollectorRegistry, MetricsServer]) -> None:
    """The process does not start without the metrics it was asked for."""
    with pytest.raises(AlreadyRunningError, match="cannot listen on"):
        await start_metrics_server(CollectorRegistry(), endpoint[1].address)


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0"])
async def test_every_address_is_ipv4_and_ipv6(listen: str) -> None:
    """As with gRPC."""
    server = await start_metrics_server(CollectorRegistry(), listen)
    port = int(server.address.rpartition(":")[2])
    for host in ("127.0.0.1", "::1"):
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(b"GET /livez HTTP/1.1\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 200 OK")
        writer.close()
    await server.aclose()
