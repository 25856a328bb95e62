"""The locator's client: the directory's answers as checked values.

Nothing of an answer is believed before its names, ids and addresses have passed the parsers of `minga_core`; an answer
that does not is treated as coming from something that is not a locator.
"""

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from opentelemetry.trace import INVALID_SPAN, Span

from minga_core.errors import (
    Code,
    InternalError,
    InvalidArgumentError,
    LocatorUnavailableError,
    MingaError,
    SettingsError,
    error_from_code,
)
from minga_core.ids import (
    Address,
    ContentId,
    Generation,
    PeerId,
    parse_address,
    parse_generation,
    parse_peer_id,
    parse_zone,
)
from minga_core.names import Name, parse_name
from minga_core.records import HoldingState
from minga_runtime import tracing
from minga_runtime.backoff import backoff

if TYPE_CHECKING:
    import httpx

CONNECT_SECONDS = 2.0
ANSWER_SECONDS = 5.0
"""One request, from connecting to the answer's last byte. Above the locator's own limit of 3 s."""
READY_PATIENCE = timedelta(seconds=30)
"""How long a patient client bears a locator that answers, but says that its store is away or is being filled again:
what a Redis takes to start elsewhere, and two heartbeats until it knows who has what."""
FIRST_PAUSE_SECONDS = 0.1
MAX_PAUSE_SECONDS = 1.0
MAX_ANSWER_BYTES = 32 * 1024 * 1024
"""Above 1,000 files of the longest names in their longest spelling."""
MAX_TEXT_LENGTH = 4096
ITER_PAGE_SIZE = 1000
MAX_LOOKUP_NAMES = 256
MAX_LOOKUP_BYTES = 60 * 1024
"""Of one look-up of many names as JSON; the locator takes bodies of at most 64 KiB."""

# What a locator, or a proxy before it, says when the same request may succeed later.
_AWAY_STATUSES = frozenset({429, 502, 503, 504})
# What a look-up's path has after the collection is the name or the id.
_COLLECTION = re.compile("(/v1/[a-z]+)/.+")
# RFC 3339; fromisoformat would drop what is below a microsecond.
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)", re.ASCII)


@dataclass(frozen=True, slots=True)
class ListedFile:
    """A name of the catalogue, with its default version."""

    name: Name
    content_id: ContentId
    size_bytes: int
    published_ns: int
    version_count: int


@dataclass(frozen=True, slots=True)
class FilePage:
    """A page of the catalogue."""

    files: tuple[ListedFile, ...]
    next_page_token: str
    """Empty at the end."""


@dataclass(frozen=True, slots=True)
class FileSource:
    """A living peer that has a content, or a part of it."""

    peer_id: PeerId
    address: Address
    zone: str
    state: HoldingState


@dataclass(frozen=True, slots=True)
class FileVersion:
    """One content, with at most 20 of its holders in random order."""

    content_id: ContentId
    size_bytes: int
    published_ns: int
    complete_count: int
    partial_count: int
    sources: tuple[FileSource, ...]


@dataclass(frozen=True, slots=True)
class FileAnswer:
    """A name's versions, the newest published first."""

    name: Name
    versions: tuple[FileVersion, ...]


@dataclass(frozen=True, slots=True)
class ContentAnswer:
    """A content, whatever it is called."""

    version: FileVersion
    names: tuple[Name, ...]


@dataclass(frozen=True, slots=True)
class ListedPeer:
    """A living peer."""

    peer_id: PeerId
    address: Address
    zone: str
    generation: Generation
    capacity_bytes: int
    free_bytes: int
    file_count: int
    active_serves: int
    table_revision: int
    software_version: str
    lease_remaining: timedelta


@dataclass(frozen=True, slots=True)
class PeerPage:
    """A page of the living peers."""

    peers: tuple[ListedPeer, ...]
    next_page_token: str
    """Empty at the end."""


@dataclass(frozen=True, slots=True)
class PlacedPeer:
    """A peer chosen for an upload."""

    peer_id: PeerId
    address: Address
    zone: str
    free_bytes: int


@dataclass(frozen=True, slots=True)
class DirectoryFigures:
    """The directory in figures."""

    live_peers: int
    names: int
    capacity_bytes: int
    free_bytes: int


class LocatorClient:
    """Asks a locator. An async context manager; connects when first used.

    base_url: `http://host:port`, as MINGA_LOCATOR; SettingsError when it is none. patience: how long look-ups ride out
    a locator that is away; 0 stands for one try, any more for READY_PATIENCE with one that says that it is not ready.
    Every method raises LocatorUnavailableError when the locator, or its store, does not answer, or when what answers is
    no locator; InvalidArgumentError for input that it refuses. Everything is safe to retry; `place` moves the round
    robin on and is never tried again by itself.
    """

    def __init__(
        self, base_url: str, *, patience: timedelta = timedelta(0), transport: "httpx.AsyncBaseTransport | None" = None
    ) -> None:
        self._base_url = _checked_url(base_url)
        self._patience_seconds = patience.total_seconds()
        self._transport = transport
        self._client: httpx.AsyncClient | None = None

    async def __aenter__(self) -> "LocatorClient":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def find_file(self, name: Name, content_id: ContentId | None = None) -> FileAnswer:
        """A name's versions, or the one of that content. Raises FileNotFoundInDirectoryError."""
        wanted = {"content_id": str(content_id)} if content_id is not None else {}
        answer = await self._get(f"/v1/files/{quote(name, safe='/')}", wanted)
        with _checked():
            found = FileAnswer(parse_name(answer["name"]), tuple(_version(item) for item in answer["versions"]))
            strangers = content_id is not None and any(item.content_id != content_id for item in found.versions)
            if found.name != name or strangers:
                raise ValueError("it answers what was not asked")
            return found

    async def find_newest(self, names: Sequence[Name]) -> dict[Name, FileVersion]:
        """The newest version of each of those names that somebody shares, with at most 8 sources of each.

        names: any number; so many as fit are asked for at once.
        """
        found: dict[Name, FileVersion] = {}
        for some in _lookups(names):
            answer = await self._look_up("POST", "/v1/files:lookup", {}, {"names": some})
            with _checked():
                files = answer["files"]
                if [item["name"] for item in files] != some:
                    raise ValueError("it answers what was not asked")
                versions = [item["version"] for item in files]
                found.update((name, _version(it)) for name, it in zip(some, versions, strict=True) if it is not None)
        return found

    async def find_content(self, content_id: ContentId) -> ContentAnswer:
        """A content's holders and names. Raises FileNotFoundInDirectoryError."""
        answer = await self._get(f"/v1/contents/{content_id}", {})
        with _checked():
            found = ContentAnswer(_version(answer), tuple(parse_name(name) for name in answer["names"]))
            if found.version.content_id != content_id:
                raise ValueError("it answers what was not asked")
            return found

    async def list_files(
        self, *, prefix: str = "", query: str = "", page_size: int = 100, page_token: str = ""
    ) -> FilePage:
        """A page of the catalogue; it may be empty and yet not the last. page_size: 1 to 1,000."""
        wanted = {"prefix": prefix, "query": query, "page_size": str(page_size), "page_token": page_token}
        answer = await self._get("/v1/files", {key: value for key, value in wanted.items() if value})
        with _checked():
            return FilePage(tuple(_listed_file(item) for item in answer["files"]), _text(answer["next_page_token"]))

    async def iter_files(self, *, prefix: str = "", query: str = "") -> AsyncGenerator[ListedFile, None]:
        """Every name of the catalogue that matches, in byte order, page by page."""
        token = ""
        while True:
            page = await self.list_files(prefix=prefix, query=query, page_size=ITER_PAGE_SIZE, page_token=token)
            for file in page.files:
                yield file
            token = _next_token(token, page.next_page_token)
            if not token:
                return

    async def list_peers(self, *, page_size: int = 100, page_token: str = "") -> PeerPage:
        """A page of the living peers. page_size: 1 to 1,000."""
        wanted = {"page_size": str(page_size)} | ({"page_token": page_token} if page_token else {})
        answer = await self._get("/v1/peers", wanted)
        with _checked():
            return PeerPage(tuple(_listed_peer(item) for item in answer["peers"]), _text(answer["next_page_token"]))

    async def iter_peers(self) -> AsyncGenerator[ListedPeer, None]:
        """Every living peer in order of the ids, page by page."""
        token = ""
        while True:
            page = await self.list_peers(page_size=ITER_PAGE_SIZE, page_token=token)
            for peer in page.peers:
                yield peer
            token = _next_token(token, page.next_page_token)
            if not token:
                return

    async def get_peer(self, peer_id: PeerId) -> ListedPeer:
        """A living peer. Raises PeerNotFoundError."""
        answer = await self._get(f"/v1/peers/{peer_id}", {})
        with _checked():
            return _listed_peer(answer)

    async def stats(self) -> DirectoryFigures:
        """The directory in figures."""
        answer = await self._get("/v1/stats", {})
        with _checked():
            return DirectoryFigures(
                _count(answer["live_peers"]),
                _count(answer["names"]),
                _count(answer["capacity_bytes"]),
                _count(answer["free_bytes"]),
            )

    async def place(
        self, name: Name, size_bytes: int, replicas: int, content_id: ContentId | None = None
    ) -> list[PlacedPeer]:
        """Peers to upload to: at most `replicas` (1 to 20), none when every peer with room holds the file already.

        Raises NoSpaceError when no living peer has room, PeerUnavailableError when none is alive.
        """
        body: dict[str, Any] = {"name": name, "size_bytes": size_bytes, "replicas": replicas}
        if content_id is not None:
            body["content_id"] = str(content_id)
        answer = await self._send("POST", "/v1/placements", {}, body)
        with _checked():
            return [_placed(item) for item in answer["placements"]]

    async def _get(self, path: str, query: dict[str, str]) -> Any:
        return await self._look_up("GET", path, query, None)

    async def _look_up(self, method: str, path: str, query: dict[str, str], body: Any) -> Any:
        """A look-up, tried again for as long as the client is patient."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        for pause_seconds in backoff(FIRST_PAUSE_SECONDS, MAX_PAUSE_SECONDS):
            try:
                return await self._send(method, path, query, body)
            except _LocatorAwayError as error:
                if loop.time() + pause_seconds >= started + self._patience_with(error):
                    raise
            await asyncio.sleep(pause_seconds)
        raise AssertionError("backoff does not end")

    def _patience_with(self, error: "_LocatorAwayError") -> float:
        """Seconds from the first try."""
        if not self._patience_seconds or not isinstance(error, _LocatorNotReadyError):
            return self._patience_seconds
        return max(self._patience_seconds, READY_PATIENCE.total_seconds())

    async def _send(self, method: str, path: str, query: dict[str, str], body: Any) -> Any:
        """The JSON of a good answer; an error of ours for any other."""
        import httpx

        with tracing.use(self._span(method, path)) as span:
            traceparent = tracing.traceparent_of(span) if tracing.enabled() else ""
            headers = {tracing.TRACEPARENT: traceparent} if traceparent else None
            try:
                async with (
                    asyncio.timeout(ANSWER_SECONDS),
                    self._http().stream(
                        method, self._base_url + path, params=query, json=body, headers=headers
                    ) as response,
                ):
                    status, content = response.status_code, await _content(response)
            except TimeoutError as error:
                raise self._away(f"nothing whole within {ANSWER_SECONDS:g} s") from error
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                raise self._away(str(error) or type(error).__name__) from error
            except AttributeError as error:
                # A connection that is reset at once, as a proxy without anything behind it does: uvloop has let go of
                # the socket already when anyio asks it for its name.
                if error.name != "getpeername":
                    raise
                raise self._away("the connection was reset") from error
            span.set_attribute("http.response.status_code", status)
            if 200 <= status < 300:
                with _checked():
                    return json.loads(content)
            raise self._refusal(status, content)

    def _span(self, method: str, path: str) -> Span:
        if not tracing.enabled():
            return INVALID_SPAN
        url = urlsplit(self._base_url + path)
        template = _COLLECTION.sub(r"\1/{}", url.path)
        about = {
            "http.request.method": method,
            "url.full": url.geturl(),
            "url.template": template,
            "server.address": url.hostname,
            "server.port": url.port,
        }
        return tracing.start_client_span(f"{method} {template}", about)

    def _http(self) -> "httpx.AsyncClient":
        import httpx

        if self._client is None:
            timeout = httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS)
            # Machines of one network are reached directly, whatever proxy variables say about the way out of it.
            # Loading the system's certificates takes longer than a look-up; without TLS there is nothing to verify.
            verify = self._base_url.startswith("https:")
            self._client = httpx.AsyncClient(timeout=timeout, transport=self._transport, trust_env=False, verify=verify)
        return self._client

    def _away(self, reason: str) -> "_LocatorAwayError":
        return _LocatorAwayError(
            f"the locator at {self._base_url} does not answer: {reason}",
            hint="start one with `minga up`, or set MINGA_LOCATOR to the URL of one that runs",
        )

    def _refusal(self, status: int, content: bytes) -> MingaError:
        """Our error for an answer that is none of the good ones."""
        try:
            problem = json.loads(content)
            code, detail = _text(problem["code"]), _line(problem["detail"])
        except (ValueError, KeyError, TypeError, RecursionError) as problem_with_it:
            if status in _AWAY_STATUSES:
                return self._away(f"HTTP {status}")
            return _not_a_locator(f"HTTP {status} without a problem document", problem_with_it)
        if code in (Code.STORE_UNAVAILABLE, Code.UNAVAILABLE, Code.BUSY):
            return _LocatorNotReadyError(f"the locator at {self._base_url} is not ready: {detail}")
        error = error_from_code(code, detail)
        return LocatorUnavailableError(f"the locator failed: {detail}") if isinstance(error, InternalError) else error


class _LocatorAwayError(LocatorUnavailableError):
    """Nobody answers, or not yet: worth another try."""


class _LocatorNotReadyError(_LocatorAwayError):
    """It answers, and says that it will know more soon."""


class _checked:  # noqa: N801 - reads as a word
    """Turns whatever is wrong with an answer into one error."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        wrong = KeyError | TypeError | ValueError | ArithmeticError | RecursionError | InvalidArgumentError
        if isinstance(error, wrong):
            raise _not_a_locator(f"{type(error).__name__}: {str(error)[:200]}", error)


def _not_a_locator(reason: str, cause: BaseException) -> LocatorUnavailableError:
    error = LocatorUnavailableError(
        f"what answers is not a Minga locator: {reason}", hint="check MINGA_LOCATOR; it is the URL of a locator"
    )
    error.__cause__ = cause
    return error


def _checked_url(text: str) -> str:
    """The URL without a slash at its end. Raises SettingsError."""
    try:
        parts = urlsplit(text)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and "@" not in text
    except ValueError:
        good = False
    if not good or not text.isprintable() or parts.query or parts.fragment or " " in text:
        raise SettingsError(f"MINGA_LOCATOR: {text[:80]!r} is not the URL of a locator: http://host:port is wanted")
    return text.rstrip("/")


async def _content(response: "httpx.Response") -> bytes:
    """The body. Raises LocatorUnavailableError when it is larger than any answer of ours."""
    content = bytearray()
    async for part in response.aiter_bytes():
        content += part
        if len(content) > MAX_ANSWER_BYTES:
            reason = f"an answer has more than {MAX_ANSWER_BYTES:,} bytes"
            raise _not_a_locator(reason, ValueError(reason))
    return bytes(content)


def _lookups(names: Sequence[Name]) -> Iterator[list[Name]]:
    """The names in slices that the locator takes."""
    some: list[Name] = []
    size_bytes = 0
    for name in names:
        # Every character may have to be escaped; quotes, comma.
        more_bytes = 2 * len(name.encode()) + 3
        if len(some) == MAX_LOOKUP_NAMES or size_bytes + more_bytes > MAX_LOOKUP_BYTES:
            yield some
            some, size_bytes = [], 0
        some.append(name)
        size_bytes += more_bytes
    if some:
        yield some


def _next_token(token: str, following: str) -> str:
    """The next page's token. Raises LocatorUnavailableError for one that leads nowhere."""
    if following and following == token:
        raise _not_a_locator("its pages go in circles", ValueError(following))
    return following


def _version(item: Any) -> FileVersion:
    return FileVersion(
        ContentId.parse(item["content_id"]),
        _count(item["size_bytes"]),
        _nanos(item["published_time"]),
        _count(item["complete_count"]),
        _count(item["partial_count"]),
        tuple(_source(source) for source in item["sources"]),
    )


def _source(item: Any) -> FileSource:
    return FileSource(
        parse_peer_id(item["peer_id"]),
        parse_address(item["address"]),
        parse_zone(item["zone"]),
        HoldingState(item["state"]),
    )


def _listed_file(item: Any) -> ListedFile:
    return ListedFile(
        parse_name(item["name"]),
        ContentId.parse(item["content_id"]),
        _count(item["size_bytes"]),
        _nanos(item["published_time"]),
        _count(item["version_count"]),
    )


def _listed_peer(item: Any) -> ListedPeer:
    return ListedPeer(
        parse_peer_id(item["peer_id"]),
        parse_address(item["address"]),
        parse_zone(item["zone"]),
        parse_generation(_count(item["generation"])),
        _count(item["capacity_bytes"]),
        _count(item["free_bytes"]),
        _count(item["file_count"]),
        _count(item["active_serves"]),
        _count(item["table_revision"]),
        _text(item["software_version"]),
        timedelta(seconds=float(item["lease_remaining_seconds"])),
    )


def _placed(item: Any) -> PlacedPeer:
    return PlacedPeer(
        parse_peer_id(item["peer_id"]),
        parse_address(item["address"]),
        parse_zone(item["zone"]),
        _count(item["free_bytes"]),
    )


def _count(value: Any) -> int:
    """A count or size: 0 to 2^63 - 1."""
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise ValueError(f"{str(value)[:40]!r} is not a count")
    return value


def _text(value: Any) -> str:
    """A line of text that is safe to show."""
    if not isinstance(value, str) or len(value) > MAX_TEXT_LENGTH or not value.isprintable():
        raise ValueError(f"{str(value)[:40]!r} is not a line of text")
    return value


def _line(value: Any) -> str:
    """Text for people, made safe to show: names in it may have characters that terminals do not show as they are."""
    if not isinstance(value, str):
        raise TypeError("there is no text")
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in value[:MAX_TEXT_LENGTH])


def _nanos(text: Any) -> int:
    """Nanoseconds since 1970 of an RFC 3339 time."""
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError(f"{text[:40]!r} is not a time")
    whole = datetime.fromisoformat(match[1] + match[3])
    return round(whole.timestamp()) * 10**9 + int((match[2] or "0").ljust(9, "0"))
