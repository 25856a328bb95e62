"""The locator's client, against the real app and against things that are none."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import pytest

from minga_core.errors import (
    FileNotFoundInDirectoryError,
    InvalidArgumentError,
    LocatorUnavailableError,
    NoSpaceError,
    PeerUnavailableError,
    SettingsError,
)
from minga_core.ids import Address, ContentId, Generation, PeerId, digest
from minga_core.names import parse_name
from minga_core.records import FileRow, HoldingState, Lease, PeerInfo, RowKey
from minga_engine.wire import locator as module
from minga_engine.wire import locator_http
from minga_engine.wire.folders import folder_entries
from minga_engine.wire.locator import LocatorClient
from minga_engine.wire.locator_answers import (
    DirectoryFigures,
    FileSource,
    FileVersion,
    ListedFile,
    ListedPeer,
    PlacedPeer,
)
from minga_locator.app import make_app
from tests.support.memory_directory import MemoryDirectory

GIB = 1 << 30
PUBLISHED_NS = 1_763_871_526_123_456_789
FILE = parse_name("dir/räksmörgås %2F?#.bin")
CONTENT = ContentId(digest(b"content"))
OTHER = ContentId(digest(b"other"))
URL = "http://locator:50052"

Handler = Callable[[httpx.Request], httpx.Response]


def row(name: str = FILE, content_id: ContentId = CONTENT, state: HoldingState = HoldingState.COMPLETE) -> FileRow:
    """A row of a table."""
    return FileRow(RowKey(parse_name(name), content_id), 1000, 5, PUBLISHED_NS, state, executable=True)


async def join(directory: MemoryDirectory, peer_id: str, *rows: FileRow, free_bytes: int = 100 * GIB) -> None:
    """A living peer that shares those rows."""
    info = PeerInfo(PeerId(peer_id), Generation(7), Address(f"{peer_id}:50053"), "lab", 200 * GIB, free_bytes, "1.2.3")
    await directory.register(info, timedelta(seconds=15))
    async with directory.push_table(
        Lease(info.peer_id, info.generation), whole=True, base_revision=0, revision=1
    ) as push:
        await push.put(rows)
        await push.commit()


class CountingTransport(httpx.ASGITransport):
    """The app, as the network would show it; requests are counted, and each may find something else instead of it."""

    def __init__(self, app: Any, instead: Callable[[int], httpx.Response | None] = lambda number: None) -> None:
        super().__init__(app)
        self.count = 0
        self._instead = instead

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """See httpx."""
        self.count += 1
        return self._instead(self.count) or await super().handle_async_request(request)


@pytest.fixture
def directory() -> MemoryDirectory:
    """What the locator reads."""
    return MemoryDirectory()


@pytest.fixture
async def client(directory: MemoryDirectory) -> AsyncIterator[LocatorClient]:
    """A client of the real locator over `directory`."""
    async with serving(directory) as made:
        yield made


@asynccontextmanager
async def serving(
    directory: MemoryDirectory,
    instead: Callable[[int], httpx.Response | None] = lambda number: None,
    retry_budget: timedelta = timedelta(0),
) -> AsyncIterator[LocatorClient]:
    """A client of the real app."""
    app = make_app(directory)
    transport = CountingTransport(app, instead)
    async with (
        app.lifespan_context(app),
        LocatorClient(URL, transport=transport, retry_budget=retry_budget) as client,
    ):
        yield client


def stranger(handler: Handler, **options: Any) -> LocatorClient:
    """A client of something else."""
    return LocatorClient(URL, transport=httpx.MockTransport(handler), **options)


def refuse(request: httpx.Request) -> httpx.Response:
    """Nobody listens."""
    raise httpx.ConnectError("connection refused", request=request)


async def test_many_names_are_found_in_few_requests(
    directory: MemoryDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest version of each that somebody shares; slices of so many names, and of what a body may have."""
    monkeypatch.setattr(module, "MAX_LOOKUP_NAMES", 256)
    names = [parse_name(f"d/{number:04}") for number in range(300)]
    await join(directory, "a", *(row(name) for name in names[1:]))
    long = [parse_name(f"{'é' * 120}/{number}") for number in range(200)]
    asked: list[int] = []

    def counted(number: int) -> None:
        asked.append(number)

    async with serving(directory, counted) as client:
        found = await client.find_newest(names)
        assert list(found) == names[1:]
        assert found[names[1]] == (await client.find_file(names[1])).versions[0]
        assert len(asked) == 3
        assert await client.find_newest(long) == {}
        assert await client.find_newest([]) == {}
    assert len(asked) == 5


async def test_a_locator_that_answers_other_names_is_none() -> None:
    """What comes must be what was asked for, in that order."""
    answer = {"files": [{"name": "other", "version": None}]}
    async with stranger(lambda request: httpx.Response(200, json=answer)) as client:
        with pytest.raises(LocatorUnavailableError, match="not a Minga locator"):
            await client.find_newest([FILE])


async def test_a_file_is_found_with_checked_values(client: LocatorClient, directory: MemoryDirectory) -> None:
    """Names, ids, addresses and instants come as they were announced, to the nanosecond."""
    await join(directory, "a", row())
    await join(directory, "b", row(state=HoldingState.PARTIAL))
    answer = await client.find_file(FILE)
    (version,) = answer.versions
    assert answer.name == FILE
    assert {(source.peer_id, source.state) for source in version.sources} == {("a", "complete"), ("b", "partial")}
    assert next(source for source in version.sources if source.peer_id == "a") == FileSource(
        PeerId("a"), Address("a:50053"), "lab", HoldingState.COMPLETE
    )
    assert version == FileVersion(CONTENT, 1000, PUBLISHED_NS, 5, True, 1, 1, version.sources)


async def test_a_content_id_pins_a_version(client: LocatorClient, directory: MemoryDirectory) -> None:
    """Only that version; FileNotFoundInDirectoryError when the name does not have it."""
    await join(directory, "a", row())
    assert [version.content_id for version in (await client.find_file(FILE, CONTENT)).versions] == [CONTENT]
    with pytest.raises(FileNotFoundInDirectoryError):
        await client.find_file(FILE, OTHER)


@pytest.mark.parametrize("name", ["nothing", "zero\u200bwidth", "ideographic\u3000space"])
async def test_what_nobody_shares_is_not_found(client: LocatorClient, name: str) -> None:
    """The right error for names and contents, whatever characters the name has; the message fits one line."""
    with pytest.raises(FileNotFoundInDirectoryError) as caught:
        await client.find_file(parse_name(name))
    assert str(caught.value).isprintable()
    with pytest.raises(FileNotFoundInDirectoryError):
        await client.find_content(OTHER)


async def test_a_content_is_found_with_its_names(client: LocatorClient, directory: MemoryDirectory) -> None:
    """By content: its holders and what it is called."""
    await join(directory, "a", row("one"), row("two"))
    answer = await client.find_content(CONTENT)
    assert answer.names == ("one", "two")
    assert [source.peer_id for source in answer.version.sources] == ["a"]


async def test_every_file_is_listed_page_by_page(
    client: LocatorClient, directory: MemoryDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """iter_files follows the pages to the end; list_files gives one of them."""
    monkeypatch.setattr(module, "ITER_PAGE_SIZE", 3)
    names = [f"dir/{number}" for number in range(8)]
    await join(directory, "a", *(row(name) for name in names), row("other"))
    assert [file.name async for file in client.iter_files(prefix="dir/")] == names
    assert [file.name async for file in client.iter_files(query="*R/7")] == ["dir/7"]
    page = await client.list_files(page_size=1)
    assert page.files == (ListedFile(parse_name("dir/0"), CONTENT, 1000, PUBLISHED_NS, 1, newer_incomplete=False),)
    following = await client.list_files(page_size=1, page_token=page.next_page_token)
    assert [file.name for file in following.files] == ["dir/1"]


async def test_a_folder_is_listed_without_what_is_below_its_folders(
    client: LocatorClient, directory: MemoryDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever pages end in: a page that ends inside of a folder is followed by what is behind that folder."""
    for page_size in (1, 2, 3, 100):
        monkeypatch.setattr(module, "ITER_PAGE_SIZE", page_size)
        names = ["d/a", *(f"d/b/{number}" for number in range(9)), "d/b0", "d/c/x/y", "d/z", "e"]
        await join(directory, "a", *(row(name) for name in names))
        entries = ["d/a", "d/b/", "d/b0", "d/c/", "d/z"]
        assert [entry.name async for entry in folder_entries(client, "d/")] == entries
        assert [entry.name async for entry in folder_entries(client, "")] == ["d/", "e"]
        assert [entry.name async for entry in folder_entries(client, "d/", "b")] == ["d/b/", "d/b0"]
        unseen = folder_entries(client, "d/", shown=lambda name: not name.startswith("d/b/"))
        assert [entry.name async for entry in unseen] == ["d/a", "d/b0", "d/c/", "d/z"]


async def test_every_peer_is_listed_page_by_page(
    client: LocatorClient, directory: MemoryDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """iter_peers follows the pages."""
    monkeypatch.setattr(module, "ITER_PAGE_SIZE", 2)
    for number in range(5):
        await join(directory, f"p{number}", row())
    peers = [peer async for peer in client.iter_peers()]
    assert [peer.peer_id for peer in peers] == ["p0", "p1", "p2", "p3", "p4"]
    peer = peers[1]
    assert timedelta(0) < peer.lease_remaining <= timedelta(seconds=15)
    assert peer == ListedPeer(
        PeerId("p1"), Address("p1:50053"), "lab", 200 * GIB, 100 * GIB, 1, 0, "1.2.3",
        peer.lease_remaining, "",
    )  # fmt: skip


async def test_figures(client: LocatorClient, directory: MemoryDirectory) -> None:
    """The directory in figures."""
    await join(directory, "a", row())
    assert await client.stats() == DirectoryFigures(1, 1, 200 * GIB, 100 * GIB, lower_bound=False)


@pytest.mark.parametrize("ahead", [timedelta(0), timedelta(days=1), timedelta(hours=-2)])
async def test_the_clock_is_compared_with_the_locators(ahead: timedelta) -> None:
    """By the date of its answer, which has whole seconds."""
    figures = {"live_peers": 0, "names": 0, "capacity_bytes": 0, "free_bytes": 0, "lower_bound": False}

    def answer(request: httpx.Request) -> httpx.Response:
        date = format_datetime(datetime.now(UTC) - ahead, usegmt=True)
        return httpx.Response(200, json=figures, headers={"Date": date})

    async with stranger(answer) as client:
        offset = await client.clock_offset()
    assert offset is not None
    assert abs(offset - ahead) < timedelta(seconds=10)


@pytest.mark.parametrize("date", [None, "", "yesterday", "Fri, 99 Feb 2026 00:00:00 GMT"])
async def test_a_locator_without_a_clock_is_no_error(date: str | None) -> None:
    """A proxy before it may drop the date, or make nonsense of it."""
    figures = {"live_peers": 0, "names": 0, "capacity_bytes": 0, "free_bytes": 0, "lower_bound": False}
    headers = {} if date is None else {"Date": date}
    async with stranger(lambda request: httpx.Response(200, json=figures, headers=headers)) as client:
        assert await client.clock_offset() is None


async def test_placements(client: LocatorClient, directory: MemoryDirectory) -> None:
    """Peers with room; holders are left out; each kind of none is its own error."""
    with pytest.raises(PeerUnavailableError):
        await client.place(FILE, CONTENT, 10, 1)
    await join(directory, "a", row())
    await join(directory, "b")
    placed = await client.place(FILE, OTHER, 10, 2)
    assert placed.peers == [PlacedPeer(PeerId("b"), Address("b:50053"), "lab", 100 * GIB)]
    assert len((await client.place(parse_name("new"), CONTENT, 10, 2)).peers) == 2
    assert (await client.place(FILE, CONTENT, 10, 0)).peers == []
    with pytest.raises(NoSpaceError):
        await client.place(FILE, CONTENT, 150 * GIB, 1)


async def test_what_the_locator_refuses_is_bad_input(client: LocatorClient) -> None:
    """InvalidArgumentError with the locator's reason."""
    with pytest.raises(InvalidArgumentError, match="page_size"):
        await client.list_files(page_size=-1)
    with pytest.raises(InvalidArgumentError, match="replicas"):
        await client.place(FILE, CONTENT, 10, 21)


async def test_a_locator_that_is_away_is_told_with_a_hint(directory: MemoryDirectory) -> None:
    """LocatorUnavailableError names the URL, its hint the setting; a locator without store says so."""
    async with stranger(refuse) as client:
        with pytest.raises(LocatorUnavailableError, match="locator:50052") as caught:
            await client.find_file(FILE)
    assert "MINGA_LOCATOR" in caught.value.hint
    directory.available = False
    async with serving(directory) as client:
        with pytest.raises(LocatorUnavailableError, match="not ready"):
            await client.stats()


async def test_an_answer_that_does_not_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is on the whole answer, however steadily bytes trickle in; and on its size."""
    monkeypatch.setattr(locator_http, "ANSWER_SECONDS", 0.05)

    async def endless(piece: bytes) -> AsyncIterator[bytes]:
        while True:
            yield piece
            await asyncio.sleep(0.001)

    async with stranger(lambda request: httpx.Response(200, content=endless(b" "))) as client:
        with pytest.raises(LocatorUnavailableError, match="no whole answer within"):
            await client.stats()
    monkeypatch.setattr(locator_http, "ANSWER_SECONDS", 5.0)
    monkeypatch.setattr(locator_http, "MAX_ANSWER_BYTES", 1000)
    async with stranger(lambda request: httpx.Response(200, content=endless(b" " * 600))) as client:
        with pytest.raises(LocatorUnavailableError, match="more than 1,000 bytes"):
            await client.stats()


async def test_a_patient_client_rides_out_a_restart(directory: MemoryDirectory) -> None:
    """Connection errors, a proxy's 502, the locator's own 503, and either's 429 are tried again until there is an
    answer."""
    await join(directory, "a", row())
    busy = {"code": "busy", "detail": "500 requests of yours are being taken already"}
    away = {
        1: "refused",
        2: httpx.Response(502, text="<html>"),
        3: "not ready",
        4: httpx.Response(429, json=busy),
        5: httpx.Response(429, text="<html>"),
    }

    def instead(number: int) -> httpx.Response | None:
        problem = away.get(number)
        if problem == "refused":
            raise httpx.ConnectError("connection refused")
        directory.available = problem != "not ready"
        return problem if isinstance(problem, httpx.Response) else None

    async with serving(directory, instead, retry_budget=timedelta(seconds=20)) as client:
        assert (await client.find_file(FILE)).name == FILE


async def test_a_connection_that_is_reset_as_it_is_made_is_a_locator_that_is_away(directory: MemoryDirectory) -> None:
    """anyio trips over what uvloop leaves of it; any other bug stays a bug."""
    await join(directory, "a", row())

    def instead(number: int) -> httpx.Response | None:
        if number == 1:
            raw_socket: Any = None
            raw_socket.getpeername()
        return None

    async with serving(directory, instead, retry_budget=timedelta(seconds=20)) as client:
        assert (await client.find_file(FILE)).name == FILE

    def broken(request: httpx.Request) -> httpx.Response:
        raise AttributeError("bug", name="other")

    async with stranger(broken) as client:
        with pytest.raises(AttributeError, match="bug"):
            await client.stats()


async def test_a_locator_that_says_that_it_is_not_ready_is_given_more_time(
    directory: MemoryDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its Redis restarts or recovers; a client without a retry budget gets the error at once."""
    await join(directory, "a", row())
    tries = 5

    def instead(number: int) -> httpx.Response | None:
        directory.available = number >= tries
        return None

    async with serving(directory, instead, retry_budget=timedelta(seconds=0.01)) as client, asyncio.timeout(20):
        assert (await client.find_file(FILE)).name == FILE
    monkeypatch.setattr(locator_http, "RECOVERY_RETRY_BUDGET", timedelta(seconds=0.01))
    async with serving(directory, instead, retry_budget=timedelta(seconds=0.01)) as client:
        with pytest.raises(LocatorUnavailableError, match="not ready"):
            await client.find_file(FILE)
    directory.available = False
    async with serving(directory) as client:
        with pytest.raises(LocatorUnavailableError, match="not ready"):
            await client.find_file(FILE)


async def test_the_retry_budget_ends() -> None:
    """The last error is raised when the next try would come too late."""
    tries = 0

    def count(request: httpx.Request) -> httpx.Response:
        nonlocal tries
        tries += 1
        return refuse(request)

    async with stranger(count, retry_budget=timedelta(seconds=0.3)) as client:
        async with asyncio.timeout(3):
            with pytest.raises(LocatorUnavailableError):
                await client.stats()
    assert tries >= 2


async def test_what_would_not_pass_is_not_tried_again() -> None:
    """Not found, refused and malformed answers come at once, whatever the budget; placements are asked for once."""
    tries = 0

    def handler(request: httpx.Request) -> httpx.Response:
        nonlocal tries
        tries += 1
        problem = {"code": "file_not_found", "detail": "no"}
        if "stats" in request.url.path:
            return httpx.Response(200, json={})
        return refuse(request) if request.method == "POST" else httpx.Response(404, json=problem)

    async with stranger(handler, retry_budget=timedelta(hours=1)) as client, asyncio.timeout(5):
        with pytest.raises(FileNotFoundInDirectoryError):
            await client.find_file(FILE)
        with pytest.raises(LocatorUnavailableError):
            await client.stats()
        with pytest.raises(LocatorUnavailableError):
            await client.place(FILE, CONTENT, 1, 1)
    assert tries == 3


GOOD_SOURCE = {"peer_id": "a", "address": "a:1", "zone": "", "state": "complete"}
GOOD_VERSION = {
    "content_id": str(CONTENT),
    "size_bytes": 1,
    "published_time": "2025-01-01T00:00:00Z",
    "tag": "AAECAwQFBgcICQoLDA0ODw==",
    "modified_time": "2024-01-01T00:00:00Z",
    "executable": False,
    "complete_count": 1,
    "partial_count": 0,
    "sources": [GOOD_SOURCE],
}


def answer_with(version: dict[str, Any] | None = None, source: dict[str, Any] | None = None) -> dict[str, Any]:
    """A file's answer with something changed."""
    changed = GOOD_VERSION | (version or {})
    if source is not None:
        changed["sources"] = [GOOD_SOURCE | source]
    return {"name": "f", "versions": [changed], "newer_incomplete": False}


async def test_the_unchanged_answer_is_good() -> None:
    """What the next test changes one thing of."""
    async with stranger(lambda request: httpx.Response(200, json=answer_with())) as client:
        assert (await client.find_file(parse_name("f"))).versions[0].published_ns == 1_735_689_600 * 10**9


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"\xff",
        b"[" * 100_000,
        b"5",
        b"null",
        b"[]",
        b"{}",
        json.dumps(answer_with() | {"name": "../../etc/passwd"}).encode(),
        json.dumps(answer_with() | {"name": "other"}).encode(),
        json.dumps(answer_with() | {"versions": None}).encode(),
        json.dumps(answer_with({"content_id": "x"})).encode(),
        json.dumps(answer_with({"size_bytes": -1})).encode(),
        json.dumps(answer_with({"size_bytes": 1 << 63})).encode(),
        json.dumps(answer_with({"size_bytes": "1"})).encode(),
        json.dumps(answer_with({"size_bytes": True})).encode(),
        json.dumps(answer_with({"size_bytes": float("inf")})).encode(),
        json.dumps(answer_with({"published_time": "yesterday"})).encode(),
        json.dumps(answer_with({"published_time": "2025-01-01T00:00:00"})).encode(),
        json.dumps(answer_with({"published_time": "2025-13-01T00:00:00Z"})).encode(),
        json.dumps(answer_with({"published_time": 5})).encode(),
        json.dumps(answer_with({"tag": 5})).encode(),
        json.dumps(answer_with({"tag": "not base64"})).encode(),
        json.dumps(answer_with({"tag": "AAAA" * 6})).encode(),
        json.dumps(answer_with({"modified_time": "yesterday"})).encode(),
        json.dumps(answer_with({"executable": 1})).encode(),
        json.dumps(answer_with({"executable": None})).encode(),
        json.dumps(answer_with({"sources": 5})).encode(),
        json.dumps(answer_with(source={"peer_id": "../a"})).encode(),
        json.dumps(answer_with(source={"peer_id": None})).encode(),
        json.dumps(answer_with(source={"address": "a"})).encode(),
        json.dumps(answer_with(source={"zone": "\x1b[2J"})).encode(),
        json.dumps(answer_with(source={"state": "perhaps"})).encode(),
    ],
)
async def test_a_malformed_answer_is_not_a_locator(body: bytes) -> None:
    """Nothing of it is believed; the error names the setting."""
    async with stranger(lambda request: httpx.Response(200, content=body)) as client:
        with pytest.raises(LocatorUnavailableError, match="not a Minga locator") as caught:
            await client.find_file(parse_name("f"))
    assert "MINGA_LOCATOR" in caught.value.hint


@pytest.mark.parametrize(
    "response",
    [
        httpx.Response(404, text="<html>no such page"),
        httpx.Response(307, headers={"location": "http://elsewhere/"}),
        httpx.Response(500, json=[]),
        httpx.Response(404, json={"code": 5, "detail": "x"}),
    ],
)
async def test_other_servers_are_not_a_locator(response: httpx.Response) -> None:
    """A refusal without a problem document of ours is never taken for `not found`, and redirects are not followed."""
    async with stranger(lambda request: response) as client:
        with pytest.raises(LocatorUnavailableError, match="not a Minga locator"):
            await client.find_file(FILE)


async def test_a_failing_locator_is_unavailable() -> None:
    """Its bugs, and codes that this client does not know, are not ours."""
    for code in ("internal", "from_the_future"):
        problem = {"code": code, "detail": "oops\x1b[2J"}
        async with stranger(lambda request, problem=problem: httpx.Response(500, json=problem)) as client:  # type: ignore[misc]
            with pytest.raises(LocatorUnavailableError, match="oops") as caught:
                await client.stats()
        assert str(caught.value).isprintable()


async def test_pages_that_go_in_circles_end() -> None:
    """A token that leads to itself is an error, not an endless listing."""
    page = {"files": [], "next_page_token": "again"}
    async with stranger(lambda request: httpx.Response(200, json=page)) as client, asyncio.timeout(5):
        with pytest.raises(LocatorUnavailableError, match="circles"):
            _ = [file async for file in client.iter_files()]
        with pytest.raises(LocatorUnavailableError, match="circles"):
            _ = [entry async for entry in folder_entries(client, "")]


async def test_a_folder_that_is_listed_over_and_over_ends() -> None:
    """Whatever is asked for, there is always the same page, which ends in a folder."""
    file = {
        "name": "d/x",
        "content_id": str(CONTENT),
        "size_bytes": 1,
        "published_time": "2026-01-01T00:00:00Z",
        "version_count": 1,
        "newer_incomplete": False,
    }
    page = {"files": [file], "next_page_token": "more"}
    async with stranger(lambda request: httpx.Response(200, json=page)) as client, asyncio.timeout(5):
        with pytest.raises(LocatorUnavailableError, match="not asked for"):
            _ = [entry async for entry in folder_entries(client, "")]


@pytest.mark.parametrize(
    "url",
    [
        "",
        "locator:50052",
        "ftp://x",
        "http://",
        "http://x:99999",
        "http://x:0",
        "http://u:p@x",
        "http://a b",
        "http://x?y",
    ],
)
def test_a_wrong_url_is_refused_at_once(url: str) -> None:
    """SettingsError names MINGA_LOCATOR, before anything is asked."""
    with pytest.raises(SettingsError, match="MINGA_LOCATOR"):
        LocatorClient(url)


async def test_a_url_may_have_a_path_and_a_slash(directory: MemoryDirectory) -> None:
    """A locator behind a proxy's prefix."""
    asked: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        return refuse(request)

    for url in ("http://[::1]:5/", "https://proxy/minga/"):
        async with LocatorClient(url, transport=httpx.MockTransport(handler)) as client:
            with pytest.raises(LocatorUnavailableError):
                await client.stats()
    assert asked == ["http://[::1]:5/v1/stats", "https://proxy/minga/v1/stats"]


def test_importing_it_does_not_import_httpx() -> None:
    """The command's cold start does not pay for what it may not use."""
    check = "import sys, minga_engine.wire.locator; sys.exit('httpx' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
