"""The gateway beyond what any HTTP server does: who may use it, what a listing shows, and clients that go away."""

import asyncio
import re
from collections.abc import Callable
from datetime import timedelta
from urllib.parse import unquote

import httpx
import pytest
from prometheus_client import CollectorRegistry

from minga_core.errors import NoSourcesError
from minga_peer.gateway import server as gateway_server
from services.peer.tests.gateway.support import LOCATOR, Served, located, served

FILES = {
    "a.bin": bytes(1_000_000),
    "data/x": b"x",
    "data/sub/y": b"y",
    "data/<b>&\"'.html": b"h",
    "data/c:d": b"colon",
    "data/@b3:1": b"at",
}
LARGE = {"large": bytes(64 * 1024 * 1024)}


async def get(gateway: Served, path: str, method: str = "GET", **headers: str) -> httpx.Response:
    async with httpx.AsyncClient(base_url=gateway.url) as client:
        return await client.request(method, path, headers={key.replace("_", "-"): it for key, it in headers.items()})


@pytest.mark.parametrize("host", ["evil.example", "evil.example:50080", "127.0.0.1.evil.example", "", "a@localhost"])
async def test_a_name_that_is_not_this_machines_is_refused(host: str) -> None:
    """A page elsewhere makes its own name resolve to this address, and is of the same origin then."""
    async with served(FILES) as gateway:
        assert (await get(gateway, "/files/a.bin", host=host)).status_code == 403


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:9", "[::1]:80", "192.0.2.7", "localhost."])
async def test_the_machines_own_names_are_good(host: str) -> None:
    """Also behind a forwarded port, which is another one for the client."""
    async with served(FILES) as gateway:
        assert (await get(gateway, "/files/data/x", host=host)).status_code == 200


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:1", "https://locator.example:50052"]
)
async def test_pages_from_elsewhere_are_refused(origin: str) -> None:
    """And their answers say nothing that lets them read it."""
    async with served(FILES) as gateway:
        for method in ("GET", "PUT", "DELETE", "OPTIONS"):
            answer = await get(gateway, "/files/data/x", method, origin=origin)
            assert answer.status_code == 403
            assert "access-control-allow-origin" not in answer.headers


async def test_an_image_tag_elsewhere_is_refused() -> None:
    """A browser says that such a request is another site's; following a link is none of its kind."""
    async with served(FILES) as gateway:
        cross = {"sec_fetch_site": "cross-site"}
        assert (await get(gateway, "/files/data/x", **cross, sec_fetch_mode="no-cors")).status_code == 403
        assert (await get(gateway, "/files/data/x", **cross, sec_fetch_mode="navigate")).status_code == 200


async def test_the_locators_page_may_read() -> None:
    """That origin is named, and no other; before it puts a file it asks."""
    async with served(FILES) as gateway:
        answer = await get(gateway, "/files/data/x", origin=LOCATOR)
        assert answer.headers["access-control-allow-origin"] == LOCATOR
        assert "ETag" in answer.headers["access-control-expose-headers"]
        asked = await get(gateway, "/files/data/x", "OPTIONS", origin=LOCATOR, access_control_request_method="PUT")
        assert asked.status_code == 204
        assert "PUT" in asked.headers["access-control-allow-methods"]
        assert asked.headers["access-control-allow-origin"] == LOCATOR


async def test_a_file_cannot_run_as_a_page_of_the_gateway() -> None:
    """Whatever its type is."""
    async with served(FILES) as gateway:
        answer = await get(gateway, "/files/data/%3Cb%3E%26%22'.html")
        assert answer.headers["content-type"].startswith("text/html")
        assert answer.headers["content-security-policy"].startswith("sandbox;")
        assert answer.headers["x-content-type-options"] == "nosniff"


async def test_the_headers_of_names_and_contents() -> None:
    """A content never changes; a name may."""
    async with served(FILES) as gateway:
        content_id = located("data/x", b"x").content_id
        named = await get(gateway, "/files/data/x")
        assert named.headers["etag"] == f'"{content_id}"'
        assert named.headers["x-minga-source"] == "peers"
        assert named.headers["cache-control"] == "no-cache"
        assert "content-disposition" not in named.headers
        for path in (f"/files/data/x@{content_id}", f"/contents/{content_id}", f"/contents/{content_id}/x.txt"):
            answer = await get(gateway, path)
            assert answer.content == b"x"
            assert "immutable" in answer.headers["cache-control"]
        assert answer.headers["content-type"].startswith("text/plain")
        answer = await get(gateway, "/files/data/c:d?download")
        assert answer.headers["content-disposition"] == "attachment; filename*=UTF-8''c%3Ad"


@pytest.mark.parametrize(
    "path",
    [
        *("/files/a//b", "/files/a/../b", "/files/%00", "/files/%ff", "/files/.minga/x"),
        *("/contents/b3:1", "/files/@b3:" + "0" * 64),
    ],
)
async def test_what_is_no_name_is_refused(path: str) -> None:
    """As bad input, whatever form it has."""
    async with served(FILES) as gateway:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(gateway.url.rpartition(":")[2]))
        writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
        writer.close()


async def test_a_listing_for_programs() -> None:
    """Files and folders that are directly there."""
    async with served(FILES) as gateway:
        answer = await get(gateway, "/files/data/", accept="application/json")
        assert answer.json() == (await get(gateway, "/files/data/?format=json")).json()
        found = {entry["name"]: entry["type"] for entry in answer.json()["entries"]}
        files = {name: "file" for name in FILES if name.count("/") == 1}
        assert found == files | {"data/sub/": "folder"}
        root = (await get(gateway, "/files/?format=json")).json()
        assert [entry["name"] for entry in root["entries"]] == ["a.bin", "data/"]
        assert (await get(gateway, "/files/nope/")).status_code == 404


async def test_a_listing_for_people() -> None:
    """Its links are relative and lead to every entry; names are shown as text."""
    async with served(FILES) as gateway:
        answer = await get(gateway, "/files/data/")
        assert "<b>" not in answer.text
        links = re.findall(r'href="([^"]*)"', answer.text)
        assert links[0] == "../"
        assert [unquote(link) for link in links[1:]] == ["<b>&\"'.html", "@b3:1", "c:d", "sub/", "x"]
        for link in links[1:]:
            url = httpx.URL(f"{gateway.url}/files/data/").join(link)
            assert (await get(gateway, url.raw_path.decode())).status_code == 200


async def test_an_error_before_the_first_byte_is_an_answer() -> None:
    """504, and not a 200 that breaks off."""
    async with served(FILES) as gateway:
        gateway.streams.failure = NoSourcesError("no source of it")
        answer = await get(gateway, "/files/a.bin")
        assert (answer.status_code, answer.json()["code"]) == (504, "no_sources")
        assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("prefer", "seconds"),
    [
        ("", 30),
        ("wait=5", 5),
        ('respond-async, Wait = "7"; x=y', 7),
        ("wait=600", 30),
        ("await=5", 30),
        ("wait=-1", 30),
    ],
)
async def test_a_client_may_wait_less_for_a_source(prefer: str, seconds: int) -> None:
    """RFC 7240; what is no number of seconds is as if it were not there."""
    async with served(FILES) as gateway:
        assert (await get(gateway, "/files/a.bin", prefer=prefer)).status_code == 200
        assert gateway.streams.options == {"wait": timedelta(seconds=seconds)}


async def test_an_error_in_the_middle_ends_the_connection() -> None:
    """The answer is shorter than it said: no client takes it for whole."""
    async with served(FILES) as gateway:
        gateway.streams.failure, gateway.streams.good_bytes = NoSourcesError("gone"), 200_000
        with pytest.raises(httpx.RemoteProtocolError):
            await get(gateway, "/files/a.bin")


async def test_a_client_that_goes_away_closes_its_reader() -> None:
    """While it waits for a source, and while it is sent a file."""
    async with served(LARGE) as gateway:
        for stuck in (True, False):
            gateway.streams.stuck = stuck
            _, writer = await asyncio.open_connection("127.0.0.1", int(gateway.url.rpartition(":")[2]))
            writer.write(b"GET /files/large HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await _until(lambda: gateway.streams.open_count == 1)
            writer.transport.abort()
            await _until(lambda: gateway.streams.open_count == 0)


async def test_a_client_that_stops_reading_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is more read for it than a few blocks and what the kernel keeps."""
    monkeypatch.setattr(gateway_server, "WRITE_SECONDS", 0.3)
    async with served(LARGE) as gateway:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(gateway.url.rpartition(":")[2]), limit=1024)
        writer.write(b"GET /files/large HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await reader.readline()
        await _until(lambda: gateway.streams.open_count == 0)
        assert gateway.streams.read_bytes < len(LARGE["large"]) // 2
        writer.transport.abort()


async def test_many_requests_leave_nothing_behind() -> None:
    """400 over kept connections: no task, no reader, no connection more than before. `make doors` has 10,000."""
    async with served(FILES) as gateway:
        await get(gateway, "/files/data/x")
        before = len(asyncio.all_tasks())
        async with httpx.AsyncClient(base_url=gateway.url, limits=httpx.Limits(max_connections=8)) as client:

            async def some() -> None:
                for _ in range(50):
                    assert (await client.get("/files/data/x")).content == b"x"

            await asyncio.gather(*(some() for _ in range(8)))
        await _until(lambda: len(asyncio.all_tasks()) <= before)
        assert gateway.streams.open_count == 0
        assert _value(gateway.registry, "minga_peer_gateway_active_requests") == 0
        assert _value(gateway.registry, "minga_peer_gateway_requests_total", method="GET", status="2xx") == 401


def _value(registry: CollectorRegistry, name: str, **labels: str) -> float:
    return registry.get_sample_value(name, labels) or 0


async def _until(holds: Callable[[], bool], seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110 - several things change it
            await asyncio.sleep(0.01)
