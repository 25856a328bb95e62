"""Connections that are silent, slow, too large or too many are closed, and others are served."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import httpx
import pytest

from minga_core.names import Name
from minga_directory.directory import CatalogEntry, CatalogPage
from minga_locator.app import make_app
from minga_locator.request_limits import RequestLimits
from minga_locator.settings import LocatorSettings
from minga_runtime.process import StopSignal
from minga_runtime.trust.credentials import Credentials
from minga_runtime.trust.members import Role
from minga_runtime.trust.tls_files import TlsFiles
from minga_runtime.web import connections, server
from services.locator.tests.support import content, eventually, until
from services.locator.tests.test_errors import StuckDirectory
from tests.support.authority import Authority
from tests.support.memory_directory import MemoryDirectory

LIMIT_SECONDS = 10.0
REQUEST = b"GET /v1/stats HTTP/1.1\r\nHost: l\r\n\r\n"


class Client:
    """A connection to the locator."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def status(self) -> int:
        """The status of the answer to REQUEST; 0 when the connection was closed."""
        self.writer.write(REQUEST)
        return await self.answered()

    async def answered(self) -> int:
        """The status of the next answer; 0 when the connection was closed."""
        try:
            async with asyncio.timeout(LIMIT_SECONDS):
                head = await self.reader.readuntil(b"\r\n\r\n")
                length = head.lower().partition(b"content-length:")[2].split()[0]
                await self.reader.readexactly(int(length))
        except (asyncio.IncompleteReadError, ConnectionResetError):
            return 0
        return int(head.split()[1])

    async def aborted(self) -> bool:
        """Whether the locator has ended the connection without waiting for the answers to be read."""
        try:
            self.writer.write(b"G")
            await self.writer.drain()
        except ConnectionError:
            return True
        return self.writer.is_closing()

    async def rest(self) -> bytes:
        """Everything that arrives until the locator closes the connection."""
        async with asyncio.timeout(LIMIT_SECONDS):
            try:
                return await self.reader.read()
            except ConnectionResetError:
                return b""


Connect = Callable[..., Awaitable[Client]]


@asynccontextmanager
async def running(
    max_connections: int = 20,
    directory: MemoryDirectory | None = None,
    limits: RequestLimits | None = None,
    listen: str = "127.0.0.1:0",
    proxies: str = "",
    credentials: Credentials | None = None,
) -> AsyncIterator[Connect]:
    """A locator's HTTP server; connects to it, from 127.0.0.1 or another host, with so large a buffer at its end."""
    writers: list[asyncio.StreamWriter] = []

    async def connect(host: str = "127.0.0.1", *, receive_bytes: int = 0) -> Client:
        to = "::1" if ":" in host else "127.0.0.1"
        own = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        own.setblocking(False)
        if receive_bytes:
            own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        own.bind((host, 0))
        await asyncio.get_running_loop().sock_connect(own, (to, listening.getsockname()[1]))
        reader, writer = await asyncio.open_connection(sock=own)
        writers.append(writer)
        return Client(reader, writer)

    with await server.bind(listen) as listening:
        app, trusted = server.behind_proxies(make_app(directory or MemoryDirectory(), limits=limits), proxies)
        http = connections.connection_class(max_connections, trusted)
        tls = credentials.web_context() if credentials else None
        async with server.http_server(
            app, listening, LocatorSettings(listen="127.0.0.1:0").stop_grace, StopSignal(), http, tls
        ):
            yield connect
            for writer in writers:
                writer.close()


async def test_a_handshake_of_tls_has_a_limit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A client that says nothing, or stops in the middle of a record, is closed."""
    monkeypatch.setattr(server, "HANDSHAKE_SECONDS", 0.2)
    folder = Authority().issue(tmp_path, "locator", "locator")
    files = TlsFiles(folder / "tls.crt", folder / "tls.key", folder / "ca.crt")
    async with running(credentials=Credentials(files, frozenset({Role.LOCATOR}))) as connect:
        silent, half = await connect(), await connect()
        half.writer.write(b"\x16\x03\x01\x02")
        assert [await client.rest() for client in (silent, half)] == [b""] * 2


async def test_idle_clients_do_not_hold_up_a_stop(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One that reads nothing does not answer the end of TLS either."""
    monkeypatch.setattr(server, "GOODBYE_SECONDS", 0.1)
    folder = Authority().issue(tmp_path, "locator", "locator")
    files = TlsFiles(folder / "tls.crt", folder / "tls.key", folder / "ca.crt")
    trusting = ssl.create_default_context(cafile=str(folder / "ca.crt"))

    def asked_once(port: int) -> ssl.SSLSocket:
        client = trusting.wrap_socket(socket.create_connection(("127.0.0.1", port)), server_hostname="127.0.0.1")
        client.sendall(REQUEST)
        assert client.recv(100)
        return client

    with contextlib.ExitStack() as idle:
        async with running(credentials=Credentials(files, frozenset({Role.LOCATOR}))) as connect:
            port = (await connect()).writer.get_extra_info("peername")[1]
            idle.enter_context(await asyncio.to_thread(asked_once, port))
        assert "graceful shutdown exceeded" not in caplog.text


async def test_the_last_answer_on_an_old_connection_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In a secure network: no request fails, and the next one is made over a new connection."""
    monkeypatch.setattr(connections, "MAX_CONNECTION_SECONDS", 0.0)
    folder = Authority().issue(tmp_path, "locator", "locator")
    files = TlsFiles(folder / "tls.crt", folder / "tls.key", folder / "ca.crt")
    async with running(credentials=Credentials(files, frozenset({Role.LOCATOR}))) as connect:
        port = (await connect()).writer.get_extra_info("peername")[1]
        trusting = ssl.create_default_context(cafile=str(folder / "ca.crt"))
        async with httpx.AsyncClient(verify=trusting, trust_env=False) as client:
            answers = await asyncio.gather(*(client.get(f"https://127.0.0.1:{port}/v1/stats") for _ in range(5)))
        assert {each.status_code for each in answers} == {200}
        assert {each.headers.get("connection") for each in answers} == {"close"}


async def test_no_connection_is_kept_until_its_clients_certificate_has_ended(tmp_path: Path) -> None:
    """A client that renews in time and asks once more behind that end would be refused, for no fault of its own."""
    authority = Authority()
    folder = authority.issue(tmp_path / "locator", "locator", "locator")
    files = TlsFiles(folder / "tls.crt", folder / "tls.key", folder / "ca.crt")
    async with running(credentials=Credentials(files, frozenset({Role.LOCATOR}))) as connect:
        port = (await connect()).writer.get_extra_info("peername")[1]
        for seconds, kept in ((server.KEEP_ALIVE_SECONDS / 2, False), (server.KEEP_ALIVE_SECONDS * 10, True)):
            own = authority.issue(tmp_path / "own", "client", "someone", life=timedelta(seconds=seconds))
            context = ssl.create_default_context(cafile=str(folder / "ca.crt"))
            context.load_cert_chain(own / "tls.crt", own / "tls.key")
            async with httpx.AsyncClient(verify=context, trust_env=False) as client:
                answer = await client.get(f"https://127.0.0.1:{port}/v1/stats")
            assert (answer.headers.get("connection") != "close") == kept


async def test_an_incomplete_head_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the first request or a later one, and however its bytes trickle in; idle connections stay."""
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.3)

    async def trickle(client: Client) -> None:
        for byte in REQUEST[:-2] + b"X: " + b"a" * 1000:
            client.writer.write(bytes([byte]))
            await asyncio.sleep(0.02)

    async with running() as connect:
        used, silent, first, later, slow = [await connect() for _ in range(5)]
        assert await used.status() == await later.status() == 200
        for client in (first, later):
            client.writer.write(REQUEST[:20])
        trickling = asyncio.create_task(trickle(slow))
        assert [await client.rest() for client in (first, later, slow)] == [b""] * 3
        trickling.cancel()
        assert await used.status() == await silent.status() == 200


async def test_an_idle_connection_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new one after the same time as one that was used."""
    monkeypatch.setattr(server, "KEEP_ALIVE_SECONDS", 0.3)
    async with running() as connect:
        silent, used = await connect(), await connect()
        assert await used.status() == 200
        assert await silent.rest() == await used.rest() == b""


@pytest.mark.parametrize("beginning", [b"GET /", b"GET / HTTP/1.1\r\nX-A: "], ids=["path", "field"])
async def test_a_head_that_is_too_large_is_refused(beginning: bytes) -> None:
    """Before it takes memory."""
    async with running() as connect:
        client = await connect()
        client.writer.write(beginning + b"a" * 2 * connections.MAX_HEAD_BYTES)
        assert (await client.rest())[:12] in (b"HTTP/1.1 400", b"")
        assert await (await connect()).status() == 200


async def test_one_host_has_half_of_the_connections() -> None:
    """One more is closed at once, and accepted when another one has ended."""
    async with running(4) as connect:
        first, second = await connect(), await connect()
        assert await first.status() == await second.status() == 200
        assert await (await connect()).rest() == b""
        assert await (await connect("127.0.0.2")).status() == 200
        first.writer.close()
        await first.writer.wait_closed()

        async def connect_again() -> int:
            return await (await connect()).status()

        await eventually(connect_again, lambda status: status == 200)


@pytest.mark.parametrize("trickling", [False, True], ids=["reads nothing", "reads a little now and then"])
async def test_slow_readers_do_not_keep_the_places_of_the_locator(
    monkeypatch: pytest.MonkeyPatch, trickling: bool
) -> None:
    """Who does not read its answers in time is disconnected, and its host is served again."""
    monkeypatch.setattr(connections, "WRITE_SECONDS", 1.0)
    listing = b"GET /v1/files?page_size=1000 HTTP/1.1\r\nHost: l\r\n\r\n"
    async with running(directory=LargeDirectory(), limits=RequestLimits(max_requests=8)) as connect:
        # Small buffers, so that all are full at nearly the same time, on a busy machine too.
        slow, prompt = [await connect(receive_bytes=4096) for _ in range(4)], await connect()
        for client in slow:
            # Far more than the sockets of both sides hold.
            client.writer.write(listing * 60)
        await eventually(prompt.status, lambda status: status == 429)
        reading = asyncio.create_task(_trickle([client.reader for client in slow])) if trickling else None
        await eventually(prompt.status, lambda status: status == 200)
        for client in slow:
            await eventually(client.aborted, bool)
        if reading:
            reading.cancel()


class LargeDirectory(MemoryDirectory):
    """Lists 1,000 long names at once."""

    async def list_names(self, *, prefix: str = "", query: str = "", after: str = "", limit: int = 100) -> CatalogPage:
        entry = CatalogEntry(Name("x" * 200), content("x"), 1, 1, 1)
        return CatalogPage([entry] * 1000, "")


async def _trickle(readers: list[asyncio.StreamReader]) -> None:
    while True:
        for reader in readers:
            with contextlib.suppress(ConnectionError):
                await reader.read(100)
        await asyncio.sleep(0.05)


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0"])
async def test_a_locator_is_reached_by_ipv4_and_ipv6(listen: str) -> None:
    """As the parts that serve gRPC on such an address; an IPv4 client is the same host on a socket for both."""
    async with running(4, listen=listen) as connect:
        for host in ("127.0.0.1", "::1", "127.0.0.1"):
            assert await (await connect(host)).status() == 200
        assert await (await connect("127.0.0.1")).rest() == b""


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "[::]:0"])
async def test_behind_a_trusted_proxy_each_client_is_a_host(listen: str) -> None:
    """The proxy may have all connections; others, who claim to be proxies, are one host whatever they send."""
    limits = RequestLimits(max_requests=4, request_seconds=30.0)
    directory = StuckDirectory()
    async with running(8, directory, limits, listen, "127.0.0.2/32") as connect:

        async def ask(host: str, client: str, path: str) -> Client:
            connection = await connect(host)
            head = f"GET {path} HTTP/1.1\r\nHost: l\r\nX-Forwarded-For: 9.9.9.9, {client}\r\n\r\n"
            connection.writer.write(head.encode())
            return connection

        for number in range(2):
            await ask("127.0.0.2", "10.0.0.1", f"/v1/files/{number}")
        await until(lambda: directory.waiting == 2)
        for host, client, status in (
            ("127.0.0.2", "10.0.0.1", 429),
            ("127.0.0.2", "10.0.0.2", 200),
            ("127.0.0.1", "10.0.0.1", 200),
        ):
            connection = await ask(host, client, "/v1/stats")
            assert await connection.answered() == status
        assert [await (await connect("127.0.0.2")).status() for _ in range(2)] == [200, 200]
        directory.go.set()


async def test_an_answer_is_one_write() -> None:
    """Head and body together; a head alone when nothing follows it, and before the connection is closed."""
    sent: list[bytes] = []
    closed: list[list[bytes]] = []
    transport = SimpleNamespace(is_closing=lambda: False, write=sent.append, close=lambda: closed.append(list(sent)))
    coalescing = connections._CoalescingTransport(cast("asyncio.Transport", transport), asyncio.get_running_loop())
    coalescing.write(b"head ")
    coalescing.write(b"body")
    assert sent == [b"head body"]
    coalescing.write(b"next head")
    await asyncio.sleep(0)
    assert sent == [b"head body", b"next head"]
    coalescing.write(b"last")
    coalescing.close()
    assert closed == [[b"head body", b"next head", b"last"]]
