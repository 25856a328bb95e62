"""Peers that share files, and a client that checks every answer against the OpenAPI document."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, TypeVar

import httpx
import jsonschema
from starlette.routing import Router

from minga_core.ids import Address, ContentId, Generation, PeerId, digest
from minga_core.names import Name, parse_name
from minga_core.records import FileRow, HoldingState, Lease, PeerInfo, RowKey
from minga_directory import DirectoryWriter
from minga_locator.openapi import openapi_document

GIB = 1 << 30
LEASE = timedelta(seconds=15)
PUBLISHED_NS = 1_763_871_526_123_456_789

T = TypeVar("T")


def content(seed: str) -> ContentId:
    """The content id of a seed."""
    return ContentId(digest(seed.encode()))


def row(
    name: str,
    seed: str = "",
    *,
    size_bytes: int = 1000,
    published_ns: int = PUBLISHED_NS,
    state: HoldingState = HoldingState.COMPLETE,
) -> FileRow:
    """A row of a table; its content is that of the seed, or of the name."""
    return FileRow(RowKey(parse_name(name), content(seed or name)), size_bytes, published_ns, published_ns, state)


async def join(
    directory: DirectoryWriter,
    peer_id: str,
    *rows: FileRow,
    zone: str = "",
    free_bytes: int = 100 * GIB,
    gateway_url: str = "",
) -> PeerInfo:
    """A living peer that shares those rows."""
    address = Address(f"{peer_id}:50053")
    info = PeerInfo(PeerId(peer_id), Generation(7), address, zone, 200 * GIB, free_bytes, "1.2.3", gateway_url)
    await directory.register(info, LEASE)
    async with directory.push_table(
        Lease(info.peer_id, info.generation), whole=True, base_revision=0, revision=1
    ) as push:
        await push.put(rows)
        await push.commit()
    return info


@asynccontextmanager
async def calling(app: Router) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the app, in its lifespan."""
    async with app.lifespan_context(app), client_of(app) as client:
        yield client


def client_of(app: Router, host: str = "127.0.0.1") -> httpx.AsyncClient:
    """A client on that host, of an app whose lifespan has begun. Fails on an answer that is not declared."""
    transport = httpx.ASGITransport(app, client=(host, 4711))
    return httpx.AsyncClient(transport=transport, base_url="http://locator", event_hooks={"response": [check_declared]})


async def check_declared(response: httpx.Response) -> None:
    """Raises AssertionError when the OpenAPI document does not declare that status, media type, header or body."""
    await response.aread()
    path = response.request.url.path
    if path in ("/", "/docs", "/openapi.json") or path.startswith("/page/"):
        return
    media_type = response.headers["content-type"].partition(";")[0]
    operation = _operation(response.request.method, path)
    if operation is None:
        assert response.status_code in (404, 405), f"undeclared path {path}"
        schema: dict[str, Any] = {"$ref": "#/components/schemas/Problem"}
    else:
        declared = operation["responses"][str(response.status_code)]
        assert ("retry-after" in response.headers) <= ("Retry-After" in declared.get("headers", {}))
        schema = declared["content"][media_type]["schema"]
    if media_type.endswith("json"):
        jsonschema.validate(response.json(), schema | {"components": openapi_document()["components"]})


def _operation(method: str, path: str) -> dict[str, Any] | None:
    for template, operations in openapi_document()["paths"].items():
        pattern = template.replace("{name}", "(?s:.*)").replace("{content_id}", "[^/]+").replace("{peer_id}", "[^/]+")
        if re.fullmatch(pattern, path):
            found: dict[str, Any] | None = operations.get(method.lower())
            return found
    return None


async def eventually(ask: Callable[[], Awaitable[T]], good: Callable[[T], bool], seconds: float = 10.0) -> T:
    """Poll until the answer is good. Raises AssertionError with the last answer when it is not in time."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while not good(answer := await ask()):
        assert loop.time() < deadline, f"still {answer!r} after {seconds} s"
        await asyncio.sleep(0.005)
    return answer


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Return once the condition holds. Raises AssertionError when it does not in time."""

    async def ask() -> bool:
        return condition()

    await eventually(ask, bool, seconds)


def problem_of(response: httpx.Response) -> tuple[int, str]:
    """Status and code of a problem document."""
    assert response.headers["content-type"] == "application/problem+json", response.text
    problem: dict[str, Any] = response.json()
    assert problem["status"] == response.status_code
    return response.status_code, problem["code"]


def names_of(response: httpx.Response) -> list[Name]:
    """Names in a listing."""
    return [file["name"] for file in response.json()["files"]]
