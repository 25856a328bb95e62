"""Connections that say nothing, are slow, say too much, or are too many: they are let go, and others are served."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import cast

import pytest

from minga_directory import MemoryDirectory
from minga_locator import connections, server
from minga_locator.app import make_app
from minga_locator.settings import LocatorSettings
from minga_runtime.process import StopSignal

LIMIT_SECONDS = 10.0
REQUEST = b"GET /v1/stats HTTP/1.1\r\nHost: l\r\n\r\n"


class Caller:
    """A connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    async def status(self) -> int:
        """Of the answer to REQUEST."""
        self.writer.write(REQUEST)
        async with asyncio.timeout(LIMIT_SECONDS):
            head = await self._reader.readuntil(b"\r\n\r\n")
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await self._reader.readexactly(int(length.split(b":")[1]))
        return int(head.split()[1])

    async def rest(self) -> bytes:
        """What comes until the locator ends the connection."""
        async with asyncio.timeout(LIMIT_SECONDS):
            try:
                return await self._reader.read()
            except ConnectionResetError:
                return b""


class Locator:
    """One that runs."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._writers: list[asyncio.StreamWriter] = []

    async def connect(self, host: str = "127.0.0.1") -> Caller:
        """Another connection, from that host."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port, local_addr=(host, 0))
        self._writers.append(writer)
        return Caller(reader, writer)

    def close(self) -> None:
        """Ends all connections."""
        for writer in self._writers:
            writer.close()


@asynccontextmanager
async def running(count: int = 20) -> AsyncIterator[Locator]:
    """A locator as it is started, without a store, for so many connections."""
    with await server.bind("127.0.0.1:0") as listening:
        app = make_app(MemoryDirectory())
        http = connections.connection_class(count)
        async with server.http_server(app, listening, LocatorSettings(), StopSignal(), http):
            locator = Locator(listening.getsockname()[1])
            yield locator
            locator.close()


async def test_who_does_not_end_a_head_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """In its first request or in a later one; a connection that waits for its next, or for its first, stays."""
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.3)
    async with running() as locator:
        good, silent, half, second = [await locator.connect() for _ in range(4)]
        assert await good.status() == 200
        assert await second.status() == 200
        half.writer.write(REQUEST[:20])
        second.writer.write(REQUEST[:20])
        for caller in (half, second):
            assert await caller.rest() == b""
        for caller in (good, silent):
            assert await caller.status() == 200


async def test_who_says_nothing_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """As long after connecting as others are after their last answer."""
    monkeypatch.setattr(server, "KEEP_ALIVE_SECONDS", 0.3)
    async with running() as locator:
        silent, used = await locator.connect(), await locator.connect()
        assert await used.status() == 200
        assert await silent.rest() == await used.rest() == b""


async def test_dripping_bytes_are_no_excuse(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time is for the whole head."""
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.3)
    async with running() as locator:
        caller = await locator.connect()

        async def drip() -> None:
            for byte in REQUEST[:-2] + b"X: " + b"a" * 1000:
                caller.writer.write(bytes([byte]))
                await asyncio.sleep(0.02)

        dripping = asyncio.create_task(drip())
        await caller.rest()
        dripping.cancel()


@pytest.mark.parametrize("beginning", [b"GET /", b"GET / HTTP/1.1\r\nX-A: "], ids=["a path", "a field"])
async def test_a_head_has_an_end(beginning: bytes) -> None:
    """One that goes on for ever is refused before it takes memory."""
    async with running() as locator:
        caller = await locator.connect()
        caller.writer.write(beginning + b"a" * 2 * connections.MAX_HEAD_BYTES)
        assert (await caller.rest())[:12] in (b"HTTP/1.1 400", b"")
        assert await (await locator.connect()).status() == 200


async def test_one_host_leaves_connections_to_others() -> None:
    """It has half; one more is closed at once, and taken when one of the others has gone."""
    async with running(4) as locator:
        first, second = await locator.connect(), await locator.connect()
        assert await first.status() == await second.status() == 200
        assert await (await locator.connect()).rest() == b""
        other = await locator.connect("127.0.0.2")
        assert await other.status() == 200
        first.writer.close()
        await first.writer.wait_closed()
        async with asyncio.timeout(LIMIT_SECONDS):
            while True:
                try:
                    assert await (await locator.connect()).status() == 200
                    break
                except (asyncio.IncompleteReadError, ConnectionResetError):
                    await asyncio.sleep(0.01)


async def test_an_answer_is_sent_at_once_and_nothing_is_kept_back() -> None:
    """Head and body together; a head alone when nothing follows it, and before the connection is closed."""
    sent: list[bytes] = []
    closed: list[list[bytes]] = []
    transport = SimpleNamespace(write=sent.append, close=lambda: closed.append(list(sent)))
    joined = connections._CoalescingTransport(cast("asyncio.Transport", transport), asyncio.get_running_loop())
    joined.write(b"head ")
    joined.write(b"body")
    assert sent == [b"head body"]
    joined.write(b"next head")
    await asyncio.sleep(0)
    assert sent == [b"head body", b"next head"]
    joined.write(b"last")
    joined.close()
    assert closed == [[b"head body", b"next head", b"last"]]
