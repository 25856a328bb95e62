"""Open files: positions, ranges of the gateway, and what becomes of a file that is written."""

import asyncio
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingUnixStreamServer
from typing import Any

import pytest

from minga import AsyncClient, Client, parse_name
from minga.errors import DaemonUnavailableError, FileNotFoundInDirectoryError, InvalidArgumentError
from minga_core.ids import ContentId
from minga_engine.progress import PutResult
from minga_engine.settings import gateway_socket
from tests.support.fake_daemon import FakeDaemon
from tests.support.fake_locator import FakeLocator, content_id

DATA = os.urandom(3_000_000)


class FakeGateway:
    """The gateway's answers for one content, and the ranges that it was asked for."""

    def __init__(self) -> None:
        self.ranges: list[tuple[int, int]] = []
        self.break_after = len(DATA)
        """Answers end after so many bytes."""


@pytest.fixture
def gateway(daemon: FakeDaemon) -> Iterator[FakeGateway]:
    """A gateway beside the daemon's control socket."""
    fake = FakeGateway()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def address_string(self) -> str:
            return "unix"

        def do_HEAD(self) -> None:
            found = self.path in ("/files/a", f"/files/a%40{content_id(1).replace(':', '%3A')}")
            self.send_response(200 if found or self.path == f"/contents/{content_id(1)}" else 404)
            self.send_header("ETag", f'"{content_id(1)}"')
            self.send_header("Content-Length", str(len(DATA)))
            self.end_headers()

        def do_GET(self) -> None:
            if self.path != f"/contents/{content_id(1)}":
                body = b'{"code": "file_not_found", "detail": "nobody shares it"}'
                self.send_response(404)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
                return
            start, end = (int(text) for text in self.headers["Range"].removeprefix("bytes=").split("-"))
            fake.ranges.append((start, end + 1))
            self.send_response(206)
            self.send_header("Content-Length", str(end + 1 - start))
            self.end_headers()
            body = DATA[start : end + 1]
            try:
                self.wfile.write(body[: fake.break_after])
            except OSError:
                self.close_connection = True
            self.close_connection |= len(body) > fake.break_after

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class says so
            """Nothing."""

    class Server(ThreadingUnixStreamServer):
        daemon_threads = True

    server = Server(str(gateway_socket(daemon.socket)), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield fake
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def client(locator: FakeLocator, daemon: FakeDaemon) -> Iterator[Client]:
    """A client on a machine with a daemon."""
    daemon.locator = locator.url
    with Client(locator=locator.url, control=daemon.socket) as client:
        yield client


def test_an_open_file_is_read_at_any_position(client: Client, gateway: FakeGateway) -> None:
    """As a file of Python's, by each way to name it."""
    for name in ("a", f"a@{content_id(1)}", content_id(1)):
        with client.open(name) as file:
            assert file.seek(-10, os.SEEK_END) == len(DATA) - 10
            assert file.read() == DATA[-10:]
            assert file.read(1) == b""
            file.seek(1_000_000)
            assert file.read(100_000) == DATA[1_000_000:1_100_000]
            file.seek(0)
            assert file.read() == DATA
        with pytest.raises(ValueError, match="closed"):
            file.read()


def test_reads_that_follow_one_another_share_an_answer(client: Client, gateway: FakeGateway) -> None:
    """Two for a whole file; a read elsewhere is asked for alone."""
    with client.open("a") as file:
        pieces = []
        while piece := file.read(50_000):
            pieces.append(piece)
        assert b"".join(pieces) == DATA
        assert len(gateway.ranges) <= 3
        gateway.ranges.clear()
        file.seek(500_000)
        file.read(10)
        assert gateway.ranges == [(500_000, 500_000 + 256 * 1024)]


def test_an_answer_that_breaks_off_is_asked_for_again_from_there(client: Client, gateway: FakeGateway) -> None:
    """As long as each brings something; one that brings nothing is an error."""
    gateway.break_after = 700_000
    with client.open("a") as file:
        assert file.read() == DATA
        gateway.break_after = 0
        file.seek(0)
        with pytest.raises(DaemonUnavailableError):
            file.read()


def test_opening_what_nobody_shares_is_an_error(client: Client, gateway: FakeGateway) -> None:
    """With the gateway's own reason; no other mode is known."""
    with pytest.raises(FileNotFoundInDirectoryError, match="nobody shares it"):
        client.open("b")
    with pytest.raises(ValueError, match="mode"):
        client.open("a", "ab")  # type: ignore[call-overload]
    with pytest.raises(InvalidArgumentError):
        client.open("b3:1")


async def test_an_open_file_for_asyncio(locator: FakeLocator, daemon: FakeDaemon, gateway: FakeGateway) -> None:
    """Reads at several positions at once; closing the client closes it."""
    daemon.locator = locator.url
    async with AsyncClient(locator=locator.url, control=daemon.socket) as client:
        async with await client.open("a") as file:
            assert (file.size_bytes, str(file.content_id)) == (len(DATA), content_id(1))
            assert b"".join([piece async for piece in file]) == DATA
            assert await file.read_at(5, 10) == DATA[5:15]
            assert file.seek(-5, os.SEEK_CUR) == len(DATA) - 5
        left_open = await client.open("a")
        await left_open.read(10)
    assert left_open.closed


def test_a_written_file_is_published_whole_or_not_at_all(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """When it is closed; not after an error, not when it is left, and nothing stays in the temporary folder."""
    published: list[tuple[bytes, str, bool]] = []
    paths: list[Path] = []

    async def put(self: AsyncClient, path: Path, name: str, *, overwrite: bool, **options: object) -> PutResult:
        published.append((await asyncio.to_thread(path.read_bytes), name, overwrite))
        paths.append(path)
        return PutResult(parse_name(name), ContentId.parse(content_id(1)), 3, (), already_there=False)

    monkeypatch.setattr(AsyncClient, "put", put)
    with client.open("new", "wb") as file:
        file.write(b"abd")
        file.seek(2)
        file.write(b"c")
        assert published == []
    with client.open("new", "xb") as file:
        file.write(b"x")
    assert published == [(b"abc", "new", True), (b"x", "new", False)]

    def fail() -> None:
        with client.open("new", "wb") as file:
            file.write(b"half")
            raise KeyError("stop")

    with pytest.raises(KeyError):
        fail()
    left = client.open("new", "wb")
    left.write(b"left")
    del left
    assert len(published) == 2
    assert not any(path.exists() for path in paths)
