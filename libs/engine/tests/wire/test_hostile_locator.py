"""A locator that answers with absurd numbers, endless bodies, bombs and loops: one error, soon, and little memory."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import httpx
import pytest

from minga_core.errors import LocatorUnavailableError, MingaError
from minga_core.ids import ContentId
from minga_core.names import parse_name
from minga_engine.wire import locator as module
from minga_engine.wire import locator_http
from minga_engine.wire.locator import LocatorClient

NAME = parse_name("f")
ID = "b3:" + "0" * 64
SOURCE = {"peer_id": "a", "address": "a:1", "zone": "", "state": "complete"}
VERSION = {
    "content_id": ID,
    "size_bytes": 1,
    "published_time": "2025-01-01T00:00:00Z",
    "tag": "",
    "modified_time": "2025-01-01T00:00:00Z",
    "executable": False,
    "complete_count": 1,
    "partial_count": 0,
    "sources": [SOURCE],
}
PEER = {
    "peer_id": "a",
    "address": "a:1",
    "zone": "",
    "generation": 1,
    "capacity_bytes": 1,
    "free_bytes": 1,
    "file_count": 1,
    "active_serves": 0,
    "table_revision": 1,
    "software_version": "1",
    "gateway_url": "http://a:50080",
    "lease_remaining_seconds": 1,
}
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


def answering(document: Any) -> LocatorClient:
    """A client of a locator that answers everything with that."""
    return LocatorClient(
        "http://locator:1", transport=httpx.MockTransport(lambda _: httpx.Response(200, json=document))
    )


@asynccontextmanager
async def speaking(*parts: bytes, repeated: bytes = b"") -> AsyncIterator[LocatorClient]:
    """A client of a server that sends those bytes, then `repeated` for ever, whatever it is asked."""

    serving: list[asyncio.Task[Any]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.append(asyncio.current_task())  # type: ignore[arg-type]
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(b"".join(parts))
                while repeated:
                    writer.write(repeated)
                    await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.transport.abort()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with LocatorClient(url, retry_budget=timedelta(0)) as client:
            yield client
        await asyncio.gather(*serving)


@pytest.mark.parametrize("encodings", [1, 2])
async def test_a_compressed_answer_is_not_unpacked(encodings: int) -> None:
    """A fault: 1,833 bytes became 2 GiB of a daemon's memory and 5 s of its event loop."""
    body = json.dumps({"padding": "0" * 1_000_000}).encode()
    for _ in range(encodings):
        body = gzip.compress(body)
    names = ", ".join(["gzip"] * encodings).encode()
    head = HEAD + b"Content-Encoding: " + names + b"\r\nContent-Length: %d\r\n\r\n" % len(body)
    async with speaking(head, body) as client:
        with pytest.raises(LocatorUnavailableError, match="compressed"):
            await client.stats()


async def test_no_compression_is_asked_for() -> None:
    """So that a proxy on the way does not compress either."""
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.headers["accept-encoding"])
        return httpx.Response(200, json={})

    async with LocatorClient("http://locator:1", transport=httpx.MockTransport(answer)) as client:
        with pytest.raises(LocatorUnavailableError):
            await client.stats()
    assert asked == ["identity"]


async def test_a_head_without_end_is_given_up() -> None:
    """The client library bounds it."""
    async with asyncio.timeout(30), speaking(HEAD, repeated=b"X-More: " + b"x" * 1000 + b"\r\n") as client:
        with pytest.raises(LocatorUnavailableError):
            await client.stats()


async def test_a_body_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """By its size, though the length that it promised was small."""
    monkeypatch.setattr(locator_http, "MAX_ANSWER_BYTES", 1_000_000)
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    async with asyncio.timeout(30), speaking(HEAD, b"Transfer-Encoding: chunked\r\n\r\n", repeated=chunk) as client:
        with pytest.raises(LocatorUnavailableError, match="more than 1,000,000 bytes"):
            await client.stats()


@pytest.mark.parametrize(("scheme", "advice"), [("http", "has https://"), ("https", "write http://")])
async def test_the_wrong_scheme_is_named(scheme: str, advice: str) -> None:
    """A locator with TLS ends a connection without it, one without TLS answers a handshake with text."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        if scheme == "https":
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        url = f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with LocatorClient(url, retry_budget=timedelta(0)) as client:
            with pytest.raises(MingaError) as caught:
                await client.stats()
    assert advice in caught.value.hint


async def test_redirects_to_itself_are_not_followed() -> None:
    """Each asks once."""
    asked = 0

    def answer(request: httpx.Request) -> httpx.Response:
        nonlocal asked
        asked += 1
        return httpx.Response(302, headers={"location": str(request.url)})

    async with LocatorClient("http://locator:1", transport=httpx.MockTransport(answer)) as client:
        with pytest.raises(LocatorUnavailableError, match="not a Minga locator"):
            await client.find_file(NAME)
    assert asked == 1


async def test_hundreds_of_thousands_of_sources_are_refused() -> None:
    """Not one of them is read."""
    async with answering(
        {"name": "f", "newer_incomplete": False, "versions": [VERSION | {"sources": [SOURCE] * 200_000}]}
    ) as client:
        with pytest.raises(LocatorUnavailableError, match="a list of 1,000 items at most"):
            await client.find_file(NAME)


LISTS: dict[str, Callable[[LocatorClient], Awaitable[object]]] = {
    "versions": lambda client: client.find_file(NAME),
    "sources": lambda client: client.find_content(ContentId.parse(ID)),
    "names": lambda client: client.find_content(ContentId.parse(ID)),
    "files": lambda client: client.list_files(),
    "peers": lambda client: anext(client.iter_peers()),
    "placements": lambda client: client.place(NAME, ContentId.parse(ID), 1, 20),
}


@pytest.mark.parametrize("key", LISTS)
@pytest.mark.parametrize("other", [[0] * 1001, "x" * 10, {"a": 1}, None], ids=["too long", "text", "object", "null"])
async def test_every_list_is_bounded(key: str, other: Any) -> None:
    """And has to be a list."""
    document = {
        "name": "f",
        "newer_incomplete": False,
        "versions": [VERSION],
        "next_page_token": "",
        **VERSION,
        key: other,
    }
    async with answering(document) as client:
        with pytest.raises(LocatorUnavailableError, match="items at most"):
            await LISTS[key](client)


async def test_no_more_peers_are_placed_than_were_asked_for() -> None:
    """An upload would go to all of them."""
    placement = {"peer_id": "a", "address": "a:1", "zone": "", "free_bytes": 1}
    async with answering({"placements": [placement] * 3, "ticket": ""}) as client:
        assert len((await client.place(NAME, ContentId.parse(ID), 1, 3)).peers) == 3
        with pytest.raises(LocatorUnavailableError):
            await client.place(NAME, ContentId.parse(ID), 1, 2)


@pytest.mark.parametrize("ticket", [None, 5, "not base64", "AAAA" * 22], ids=["null", "number", "text", "too long"])
async def test_a_ticket_that_is_none_is_no_answer_of_a_locator(ticket: Any) -> None:
    """No peer is shown what no registry takes."""
    async with answering({"placements": [], "ticket": ticket}) as client:
        with pytest.raises(LocatorUnavailableError):
            await client.place(NAME, ContentId.parse(ID), 1, 1)


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00Z", "1969-12-31T23:59:59Z", "9999-12-31T23:59:59.999999999Z"])
async def test_times_that_no_index_keeps_become_ones_that_it_does(time: str) -> None:
    """A peer stores when a file was published: 64 bits of nanoseconds."""
    async with answering(
        {"name": "f", "newer_incomplete": False, "versions": [VERSION | {"published_time": time}]}
    ) as client:
        published_ns = (await client.find_file(NAME)).versions[0].published_ns
    assert published_ns in (0, (1 << 63) - 1)


@pytest.mark.parametrize("left", [-1, 1e18, "5", None, True, float("nan"), float("inf"), 1 << 100])
async def test_an_absurd_lease_is_refused(left: Any) -> None:
    """A number of seconds."""
    body = json.dumps({"peers": [PEER | {"lease_remaining_seconds": left}], "next_page_token": ""})
    transport = httpx.MockTransport(lambda _: httpx.Response(200, content=body.encode()))
    async with LocatorClient("http://locator:1", transport=transport) as client:
        with pytest.raises(LocatorUnavailableError, match="not a Minga locator"):
            await anext(client.iter_peers())


@pytest.mark.parametrize("url", [None, 5, "ftp://a:1", "http://a", "http://a:1/x", "http://b@a:1", "a:1"])
async def test_a_gateway_that_is_no_address_is_refused(url: Any) -> None:
    """A page makes a link of it."""
    async with answering({"peers": [PEER | {"gateway_url": url}], "next_page_token": ""}) as client:
        with pytest.raises(LocatorUnavailableError, match="not a Minga locator"):
            await anext(client.iter_peers())


@pytest.mark.parametrize(
    "name", ["../x", "/etc/passwd", "a//b", ".", "a/../b", "a\0b", "a\nb", "", 5, None, "x" * 2000]
)
async def test_names_that_are_none_are_refused(name: Any) -> None:
    """Wherever names come: a listing is what `minga get DIR/` writes to."""
    listed = {key: VERSION[key] for key in ("content_id", "size_bytes", "published_time")}
    file = listed | {"name": name, "version_count": 1}
    async with answering({"files": [file], "next_page_token": ""}) as client:
        with pytest.raises(LocatorUnavailableError, match="not a Minga locator"):
            await anext(client.iter_files())
    async with answering(VERSION | {"names": [name]}) as client:
        with pytest.raises(LocatorUnavailableError, match="not a Minga locator"):
            await client.find_content(ContentId.parse(ID))


async def test_empty_pages_without_end_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each with a token of its own, so that they do not go in circles."""
    monkeypatch.setattr(module, "MAX_EMPTY_PAGES", 20)
    asked = 0

    def answer(request: httpx.Request) -> httpx.Response:
        nonlocal asked
        asked += 1
        return httpx.Response(200, json={"files": [], "next_page_token": str(asked)})

    async with LocatorClient("http://locator:1", transport=httpx.MockTransport(answer)) as client:
        with pytest.raises(LocatorUnavailableError, match="20 pages in a row are empty"):
            await anext(client.iter_files())
    assert asked == 21


@pytest.mark.parametrize("status", [100, 204, 206, 304, 400, 418, 429, 500, 503, 599, 999])
@pytest.mark.parametrize("body", [b"", b"<html>", b"\x1f\x8b", b'{"code": "lease_superseded", "detail": "x"}'])
async def test_no_status_with_any_body_is_a_bug(status: int, body: bytes) -> None:
    """An error of ours, whatever comes."""
    transport = httpx.MockTransport(lambda _: httpx.Response(status, content=body))
    async with LocatorClient("http://locator:1", transport=transport, retry_budget=timedelta(0)) as client:
        with pytest.raises(MingaError):
            await client.find_file(NAME)
