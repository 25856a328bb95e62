"""Every error is a problem document, and requests that are too large, too slow or too many are refused."""

import asyncio
import json
import logging
from collections.abc import Sequence
from typing import Any

import httpx
import pytest

from minga_core.ids import ContentId
from minga_core.names import Name
from minga_directory import Version
from minga_locator.app import make_app
from minga_locator.request_limits import RequestLimits
from services.locator.tests.support import calling, client_of, content, join, problem_of, row, until
from tests.support.memory_directory import MemoryDirectory

PLACE = "/v1/placements"
JSON = {"Content-Type": "application/json"}
ALL_PATHS = ("/v1/files", "/v1/files/f", f"/v1/contents/{content('f')}", "/v1/peers", "/v1/peers/a", "/v1/stats")


class StuckDirectory(MemoryDirectory):
    """A store whose look-ups wait until `go` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.go = asyncio.Event()
        self.waiting = 0

    async def find(
        self, name: Name, *, content_id: ContentId | None = None, max_holders: int = 20
    ) -> Sequence[Version]:
        """See DirectoryReader."""
        self.waiting += 1
        await self.go.wait()
        return await super().find(name, content_id=content_id, max_holders=max_holders)

    async def ping(self) -> None:
        """See DirectoryReader."""
        self.waiting += 1
        await self.go.wait()


class BrokenDirectory(MemoryDirectory):
    """A store with a bug."""

    async def find(
        self, name: Name, *, content_id: ContentId | None = None, max_holders: int = 20
    ) -> Sequence[Version]:
        """See DirectoryReader."""
        raise ZeroDivisionError("secret detail")


async def test_a_problem_says_what_and_where(api: httpx.AsyncClient) -> None:
    """RFC 9457 with our code; the instance is the path, percent-encoded; nothing else is in it."""
    answer = await api.get("/v1/files/no%20such")
    assert answer.json() == {
        "type": "about:blank",
        "title": "Not Found",
        "status": 404,
        "detail": "nobody shares 'no such'",
        "instance": "/v1/files/no%20such",
        "code": "file_not_found",
    }


async def test_unknown_routes_and_methods_are_problems_too(api: httpx.AsyncClient) -> None:
    """404 no_such_route, 405 method_not_allowed with Allow; a slash too many is no redirect."""
    for path in ("/v1", "/v2/files", "/v1/peers/", "/v1/peers/a/b", "/v1/contents/"):
        assert problem_of(await api.get(path)) == (404, "no_such_route")
    refused = await api.delete("/v1/files")
    assert problem_of(refused) == (405, "method_not_allowed")
    assert refused.headers["allow"] == "GET"


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"5", b"null", b'"x"', b"\xff\xfe", b"[" * 60_000, b'{"name":"\\ud800"}'],
)
async def test_a_malformed_body_is_422(api: httpx.AsyncClient, body: bytes) -> None:
    """What is no JSON object at all is malformed, whatever way it is broken."""
    answer = await api.post(PLACE, content=body, headers=JSON)
    assert problem_of(answer) == (422, "invalid_argument")


async def test_a_body_of_another_type_is_422(api: httpx.AsyncClient) -> None:
    """Only JSON is read as JSON."""
    body = json.dumps({"name": "f", "size_bytes": 1}).encode()
    answer = await api.post(PLACE, content=body, headers={"Content-Type": "text/plain"})
    assert problem_of(answer) == (422, "invalid_argument")


@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_over_64_kib_is_413(api: httpx.AsyncClient, declared: bool) -> None:
    """Whether the length is declared beforehand or found while reading; 64 KiB themselves are read."""

    async def pieces(count: int) -> Any:
        for _ in range(count):
            yield b" " * 1024

    async def send(count: int) -> httpx.Response:
        return await api.post(PLACE, content=b" " * 1024 * count if declared else pieces(count), headers=JSON)

    assert problem_of(await send(65)) == (413, "limit_exceeded")
    assert problem_of(await send(64)) == (422, "invalid_argument")


async def test_a_body_that_trickles_is_408(directory: MemoryDirectory) -> None:
    """408 after the limit, however many bytes trickle in."""

    async def trickle() -> Any:
        while True:
            yield b" "
            await asyncio.sleep(0.01)

    async with calling(make_app(directory, limits=RequestLimits(body_seconds=0.05))) as api:
        answer = await api.post(PLACE, content=trickle(), headers=JSON)
    assert problem_of(answer) == (408, "request_timeout")
    assert answer.headers["connection"] == "close"


async def test_a_bug_is_a_500_without_details(caplog: pytest.LogCaptureFixture) -> None:
    """The client learns that it is our fault, the log has the traceback, once."""
    async with calling(make_app(BrokenDirectory())) as api:
        answer = await api.get("/v1/files/f")
    assert problem_of(answer) == (500, "internal")
    assert "secret" not in answer.text
    (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert record.exc_info is not None
    assert "secret detail" in str(record.exc_info[1])


async def test_a_store_that_is_away_is_503(api: httpx.AsyncClient, directory: MemoryDirectory) -> None:
    """503 with Retry-After everywhere under /v1, and from /readyz; /livez does not care; and it passes."""
    await join(directory, "a", row("f"))
    directory.available = False
    answers = [await api.get(path) for path in ALL_PATHS]
    answers.append(await api.post(PLACE, json={"name": "g", "size_bytes": 1}))
    answers.append(await api.post("/v1/files:lookup", json={"names": ["f"]}))
    answers.append(await api.get("/readyz"))
    for answer in answers:
        assert problem_of(answer) == (503, "store_unavailable")
        assert answer.headers["retry-after"] == "1"
        assert answer.json()["retry_after_seconds"] == 1
    assert (await api.get("/livez")).status_code == 200
    directory.available = True
    assert [(await api.get(path)).status_code for path in (*ALL_PATHS, "/readyz")] == [200] * 7


async def test_a_store_that_hangs_is_503_in_time() -> None:
    """No request waits longer than the limit, and readiness has a shorter one."""
    limits = RequestLimits(request_seconds=0.05, ready_seconds=0.05)
    async with asyncio.timeout(2.5), calling(make_app(StuckDirectory(), limits=limits)) as api:
        assert problem_of(await api.get("/v1/files/f")) == (503, "store_unavailable")
        assert problem_of(await api.get("/readyz")) == (503, "store_unavailable")
        assert (await api.get("/livez")).text == "ok\n"


async def test_probes_and_scrapes_have_a_quota_of_their_own() -> None:
    """Only `/livez` is without one; clients of /v1 do not use it up, nor the other way."""
    directory = StuckDirectory()
    app = make_app(directory, limits=RequestLimits(max_operator_requests=4, ready_seconds=30.0))
    async with calling(app) as api, client_of(app, "10.0.0.2") as other:
        async with asyncio.TaskGroup() as tasks:
            stuck = [tasks.create_task(api.get("/readyz")) for _ in range(2)]
            await until(lambda: directory.waiting == 2)
            for path in ("/readyz", "/metrics", "/docs", "/openapi.json"):
                assert problem_of(await api.get(path)) == (429, "busy")
                assert path == "/readyz" or (await other.get(path)).status_code == 200
            assert (await api.get("/livez")).status_code == (await api.get("/v1/stats")).status_code == 200
            directory.go.set()
        assert [task.result().status_code for task in stuck] == [200] * 2


@pytest.mark.parametrize("host", ["2001:db8::{}", "2001:db8::{}:0:0:1", "fe80::{}%eth0"])
async def test_one_ipv6_network_is_one_host(host: str) -> None:
    """Any host may use as many addresses of its /64 as it likes."""
    directory = StuckDirectory()
    app = make_app(directory, limits=RequestLimits(max_requests=4, request_seconds=30.0))
    async with calling(app), client_of(app, host.format(1)) as one, client_of(app, host.format(2)) as another:
        async with asyncio.TaskGroup() as tasks:
            stuck = [tasks.create_task(one.get(f"/v1/files/{name}")) for name in ("f", "g")]
            await until(lambda: directory.waiting == 2)
            assert problem_of(await another.get("/v1/stats")) == (429, "busy")
            directory.go.set()
        assert [task.result().status_code for task in stuck] == [404] * 2


async def test_requests_over_the_quota_are_refused() -> None:
    """One host may use half of the slots, and gets 429 at once beyond that; with all slots in use every host gets 503.
    Probes are answered as ever, and so is everything once there are slots again."""
    directory = StuckDirectory()
    app = make_app(directory, limits=RequestLimits(max_requests=4))
    async with calling(app) as api, client_of(app, "10.0.0.2") as other:
        async with asyncio.TaskGroup() as tasks:
            stuck = [tasks.create_task(api.get(f"/v1/files/{name}")) for name in ("f", "g")]
            await until(lambda: directory.waiting == 2)
            too_many = await api.get("/v1/stats")
            assert problem_of(too_many) == (429, "busy")
            assert too_many.headers["retry-after"] == "1"
            assert (await other.get("/v1/stats")).status_code == 200
            stuck += [tasks.create_task(other.get(f"/v1/files/{name}")) for name in ("h", "i")]
            await until(lambda: directory.waiting == 4)
            for client in (api, other):
                refused = await client.get("/v1/stats")
                assert problem_of(refused) == (503, "unavailable")
                assert refused.headers["retry-after"] == "1"
                assert (await client.get("/livez")).status_code == 200
            directory.go.set()
        assert [task.result().status_code for task in stuck] == [404] * 4
        assert (await api.get("/v1/stats")).status_code == 200
