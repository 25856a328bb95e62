"""Connections through a Service's virtual address."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from deploy.tests.cluster.proxy import PortProxy

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], object]


@asynccontextmanager
async def proxied(handler: Handler) -> AsyncIterator[tuple[PortProxy, list[tuple[str, int]]]]:
    """A proxy in front of one server, and the list of where it may connect to."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        result = handler(reader, writer)
        if asyncio.iscoroutine(result):
            await result
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    pods = [("127.0.0.1", server.sockets[0].getsockname()[1])]
    proxy = PortProxy("127.0.0.1", 0, lambda: pods)
    await proxy.refresh()
    try:
        yield proxy, pods
    finally:
        await proxy.aclose()
        server.close()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1000):
        writer.write(data.upper())
        await writer.drain()


async def test_bytes_go_both_ways_and_each_end_may_close_its_half() -> None:
    """An end of file from the client reaches the pod, whose last words still come back."""
    async with proxied(echo) as (proxy, _), asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"hello")
        writer.write_eof()
        assert await reader.read() == b"HELLO"
        writer.close()


async def test_a_connection_stays_with_its_pod_when_that_is_not_ready_any_more() -> None:
    """New ones are reset as long as Services do not know that there is no pod, and refused after that."""
    async with proxied(echo) as (proxy, pods), asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"a")
        assert await reader.readexactly(1) == b"A"
        pods.clear()
        writer.write(b"b")
        assert await reader.readexactly(1) == b"B"
        other, other_writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        with pytest.raises(ConnectionResetError):
            await other.read()
        other_writer.close()
        port = proxy.port
        await proxy.refresh()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"c")
        assert await reader.readexactly(1) == b"C"
        writer.close()


async def test_what_a_pod_breaks_is_broken_for_its_client() -> None:
    """A connection that the pod resets is reset, not ended as if all was said."""

    def reset(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    async with proxied(reset) as (proxy, _), asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
        writer.close()
