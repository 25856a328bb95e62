"""The lane answers what the routes would, to the byte, and leaves to them whatever is unusual."""

import json
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import quote

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from prometheus_client import CollectorRegistry
from starlette.types import Message, Receive, Scope, Send

from minga_core.clock import ManualClock
from minga_core.ids import Address, PeerId
from minga_core.names import Name
from minga_core.records import HoldingState
from minga_directory import Holder, MemoryDirectory, Placement, Version
from minga_locator import encoding, models
from minga_locator.app import make_app
from minga_locator.lane import Lane
from minga_locator.limits import Limits
from services.locator.tests.support import PUBLISHED_NS, calling, content, join, row

PLACE = "/v1/placements"
NAMES = ("f", "data/set 1.bin", "räksmörgås/日本語", 'q"uo\\te', "percent%2F", "trailing.", "🙂", "a+b&c=d;e?#")
PINNED = str(content("f"))


@dataclass
class Side:
    """A locator over a directory of its own."""

    laned: bool
    directory: MemoryDirectory = field(init=False)
    clock: ManualClock = field(default_factory=ManualClock)
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    api: httpx.AsyncClient = field(init=False)

    def __post_init__(self) -> None:
        self.directory = MemoryDirectory(self.clock)

    def app(self) -> FastAPI:
        """With or without the lane."""
        app = make_app(self.directory, clock=self.clock, registry=self.registry, limits=Limits(body_seconds=0.2))
        if not self.laned:
            app.user_middleware[:] = [one for one in app.user_middleware if cast(Any, one.cls) is not Lane]
        return app

    async def fill(self) -> None:
        """Peers that share NAMES, some of them in part, and one name in two versions."""
        for number in range(5):
            state = HoldingState.PARTIAL if number == 3 else HoldingState.COMPLETE
            rows = [row(name, state=state) for name in NAMES[: 4 + number]]
            await join(self.directory, f"p{number}", *rows, zone="lab" if number % 2 else "")
        await join(self.directory, "old", row("f", "other", published_ns=PUBLISHED_NS - 1))

    def counted(self) -> dict[tuple[str, ...], float]:
        """All that the metrics say, save how long things took."""
        return {
            (sample.name, *(f"{key}={value}" for key, value in sorted(sample.labels.items()))): sample.value
            for metric in self.registry.collect()
            for sample in metric.samples
            if not sample.name.startswith("process_") and not sample.name.endswith(("_sum", "_bucket"))
        }


@pytest.fixture
async def sides() -> AsyncIterator[tuple[Side, Side]]:
    """One with the lane, and one without."""
    async with AsyncExitStack() as stack:
        made = Side(laned=True), Side(laned=False)
        for side in made:
            await side.fill()
            side.api = await stack.enter_async_context(calling(side.app()))
        yield made


def _look_ups() -> list[tuple[str, str, dict[str, Any]]]:
    names = [*NAMES, "nothing", "", "a//b", "../f", ".minga/x", "x" * 300, "e\u0301"]
    paths = [f"/v1/files/{quote(name, safe=safe)}" for name in names for safe in ("/", "")]
    queries = (f"content_id={PINNED}", f"content_id={quote(PINNED)}", "content_id=x", f"content_id={PINNED}&a=1", "x=1")
    paths += [f"/v1/files/f?{query}" for query in (*queries, "", f"content_id={content('no')}")]
    paths += ["/v1/files/%FF", "/v1/files/a%0Ab", "/v1/files/f%", "/v1/files/%C3%28", "/v1/files/f/"]
    return [("GET", path, {}) for path in paths] + [("PUT", "/v1/files/f", {})]


def _bodies() -> list[bytes]:
    wanted: dict[str, Any] = {"name": "new", "size_bytes": 10}
    changes: list[dict[str, Any]] = [
        {}, {"replicas": 3}, {"replicas": 20}, {"replicas": 21}, {"replicas": 0}, {"replicas": True},
        {"size_bytes": -1},
        {"size_bytes": 1 << 60}, {"size_bytes": 1 << 45}, {"size_bytes": 1.0}, {"name": "f"}, {"name": ""},
        {"name": "../f"}, {"name": "e\u0301"}, {"name": 5}, {"content_id": PINNED}, {"content_id": None},
        {"content_id": "b3:x"}, {"more": 1}, {"name": "x" * 5000},
    ]  # fmt: skip
    odd = [
        b"",
        b"{",
        b"[]",
        b"null",
        b"5",
        b'{"name":"\\ud800","size_bytes":1}',
        b'{"name":"a","size_bytes":1,"name":"b"}',
    ]
    odd += ['{"name":"ä","size_bytes":1}'.encode("utf-16"), b'\xef\xbb\xbf{"name":"a","size_bytes":1}', b" " * 70_000]
    odd += [
        b'{"name":"a","size_bytes":1e3}',
        b'{"name":"a","size_bytes":NaN}',
        b"[" * 3000,
        b'{"name":"a\xff","size_bytes":1}',
    ]
    return [json.dumps(wanted | change).encode() for change in changes] + odd


def _placements() -> list[tuple[str, str, dict[str, Any]]]:
    plain = {"Content-Type": "application/json"}
    kinds = ("application/json; charset=utf-8", "text/plain", "application/vnd.x+json", "")
    asked = [("POST", PLACE, {"content": body, "headers": plain}) for body in _bodies()]
    body = b'{"name":"new","size_bytes":1}'
    asked += [("POST", PLACE, {"content": body, "headers": {"Content-Type": kind}}) for kind in kinds]
    return [*asked, ("POST", f"{PLACE}?x=1", {"content": body, "headers": plain}), ("GET", PLACE, {})]


def _shown(answer: httpx.Response) -> Any:
    """All of an answer; its sources in an order that can be compared."""
    body: Any = answer.text
    if answer.headers["content-type"].endswith("json") and answer.content:
        body = answer.json()
        for version in body.get("versions", ()):
            version["sources"].sort(key=lambda source: source["peer_id"])
    return answer.status_code, dict(answer.headers), body


async def test_answers_are_those_of_the_routes(sides: tuple[Side, Side]) -> None:
    """Plain and odd requests, in any order, good and bad: status, headers, body, and what is measured of them."""
    asked = (_look_ups() + _placements()) * 3
    random.Random(5).shuffle(asked)
    laned, routed = sides
    for number, (method, path, options) in enumerate(asked):
        answers = [await side.api.request(method, path, **options) for side in sides]
        assert _shown(answers[0]) == _shown(answers[1]), (method, path, options)
        if number % 7 == 0:
            for side in sides:
                side.clock.advance(0.2)
    assert laned.counted() == routed.counted()


async def test_refusals_of_the_store_are_those_of_the_routes(sides: tuple[Side, Side]) -> None:
    """503 with Retry-After, and counted so."""
    for side in sides:
        side.directory.available = False
    plain = {"content": b'{"name":"new","size_bytes":1}', "headers": {"Content-Type": "application/json"}}
    for method, path, options in (("GET", "/v1/files/f", {}), ("POST", PLACE, plain)):
        laned, routed = [await side.api.request(method, path, **cast(Any, options)) for side in sides]
        assert _shown(laned) == _shown(routed)
        assert (laned.status_code, laned.headers["retry-after"]) == (503, "1")
    assert sides[0].counted() == sides[1].counted()


async def test_bodies_that_come_in_pieces_or_not_at_all_are_the_routes(sides: tuple[Side, Side]) -> None:
    """As a whole they are valid; too long, they are refused."""

    async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
        for part in parts:
            yield part

    for parts in (
        (b'{"name":"new",', b'"size_bytes":1}'),
        (b"{", b" " * 70_000),
        (b'{"name":"new","size_bytes":1}', b""),
    ):
        headers = {"Content-Type": "application/json"}
        laned, routed = [await side.api.post(PLACE, content=pieces(*parts), headers=headers) for side in sides]
        assert _shown(laned) == _shown(routed)


async def _reached(
    method: str, path: str, query: bytes = b"", body: bytes = b"", kind: bytes = b"application/json"
) -> bool:
    """Whether such a request gets through the lane to what is behind it."""
    directory = MemoryDirectory()
    await join(directory, "a", row("f"))
    app = make_app(directory)
    (middleware,) = [one for one in app.user_middleware if cast(Any, one.cls) is Lane]
    through = []

    async def behind(scope: Scope, receive: Receive, send: Send) -> None:
        assert body in ((await receive())["body"], b"")
        through.append(scope)

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        pass

    scope = {
        "type": "http", "method": method, "path": path, "raw_path": quote(path).encode(), "query_string": query,
        "headers": [(b"content-type", kind)], "root_path": "",
    }  # fmt: skip
    kwargs: dict[str, Any] = dict(middleware.kwargs)
    assert isinstance(kwargs["look_up"], APIRoute)
    await Lane(behind, **kwargs)(scope, receive, send)
    async with app.router.lifespan_context(app):
        pass
    return bool(through)


async def test_what_is_plain_does_not_reach_the_routes() -> None:
    """Else nothing were gained; and what is not plain does, with its body."""
    good = b'{"name":"new","size_bytes":1}'
    assert not await _reached("GET", "/v1/files/f")
    assert not await _reached("GET", "/v1/files/é")
    assert not await _reached("GET", "/v1/files/nothing")
    assert not await _reached("GET", "/v1/files/f", b"content_id=" + PINNED.encode())
    assert not await _reached("POST", PLACE, body=good)
    assert await _reached("GET", "/v1/files/f", b"content_id=x")
    assert await _reached("GET", "/v1/files/../f")
    assert await _reached("GET", "/v1/peers")
    assert await _reached("POST", PLACE, body=b'{"name":"new"}')
    assert await _reached("POST", PLACE, body=good, kind=b"text/plain")


def _version(rng: random.Random) -> Version:
    holders = [
        Holder(
            PeerId(f"p{number}"), Address(f"[::{number}]:1"), rng.choice(["", "zone-1"]), rng.choice(list(HoldingState))
        )
        for number in range(rng.randrange(1, 6))
    ]
    published_ns = rng.randrange(-(10**18), 3 * 10**18)
    return Version(
        content(str(rng.random())), rng.randrange(1 << 50), published_ns, holders, rng.randrange(9), rng.randrange(9)
    )


def _in_order(text: str) -> str:
    body = json.loads(text)
    for version in body["versions"]:
        version["sources"].sort(key=lambda source: source["peer_id"])
    # Keys as they came: not sorted.
    return json.dumps(body)


def test_bytes_are_those_of_the_models() -> None:
    """Random versions under random names, and placements: the models' own JSON, sources aside in the same order."""
    rng = random.Random(3)
    for _ in range(300):
        name = Name(rng.choice(NAMES) + str(rng.random()))
        versions: Sequence[Version] = [_version(rng) for _ in range(rng.randrange(4))]
        body = encoding.EncodedFile(name, versions).body().decode()
        wanted = models.FileInfo(name=name, versions=[models.FileVersion.of(version) for version in versions])
        assert len(body.encode()) == len(wanted.model_dump_json().encode())
        assert _in_order(body) == _in_order(wanted.model_dump_json())
        peers = [
            Placement(PeerId(f"p{n}"), Address("h:1"), "", rng.randrange(1 << 60)) for n in range(rng.randrange(4))
        ]
        shown = models.PlacementList(placements=[models.PlacedPeer.of(peer) for peer in peers])
        assert encoding.placements_body(peers).decode() == shown.model_dump_json()


def test_every_source_is_first_as_often_as_another() -> None:
    """Of one remembered answer."""
    holders = [Holder(PeerId(f"p{number}"), Address("h:1"), "", HoldingState.COMPLETE) for number in range(4)]
    file = encoding.EncodedFile(Name("f"), [Version(content("f"), 1, 1, holders, 4, 0)])
    firsts = [json.loads(file.body())["versions"][0]["sources"][0]["peer_id"] for _ in range(2000)]
    assert min(firsts.count(f"p{number}") for number in range(4)) > 400
