"""The locator's client: the directory's answers as checked values.

Nothing of an answer is believed before its names, ids and addresses have passed the parsers of `minga_core`; an answer
that does not is treated as coming from something that is not a locator.
"""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from minga_core.errors import (
    Code,
    InternalError,
    InvalidArgumentError,
    LocatorUnavailableError,
    MingaError,
    error_from_code,
)
from minga_core.ids import Address, ContentId, Generation, PeerId, parse_address, parse_generation, parse_peer_id
from minga_core.names import Name, parse_name
from minga_core.records import HoldingState
from minga_runtime.backoff import backoff

if TYPE_CHECKING:
    import httpx

CONNECT_SECONDS = 2.0
READ_SECONDS = 5.0
MAX_ANSWER_BYTES = 32 * 1024 * 1024


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
    active_uploads: int
    table_revision: int
    software_version: str
    lease_remaining: timedelta


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

    base_url: `http://host:port`. patience: how long look-ups ride out a locator that is away. Every method raises
    LocatorUnavailableError when the locator, or its store, does not answer, and InvalidArgumentError for input that it
    refuses. Everything but `place` is safe to retry.
    """

    def __init__(
        self, base_url: str, *, patience: timedelta = timedelta(0), transport: "httpx.AsyncBaseTransport | None" = None
    ) -> None:
        self._base_url = base_url.rstrip("/")
        self._patience_seconds = patience.total_seconds()
        self._transport = transport
        self._client: httpx.AsyncClient | None = None

    async def __aenter__(self) -> "LocatorClient":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._client is not None:
            await self._client.aclose()

    async def find_file(self, name: Name, content_id: ContentId | None = None) -> FileAnswer:
        """A name's versions, or the one of that content. Raises FileNotFoundInDirectoryError."""
        wanted = {"content_id": str(content_id)} if content_id is not None else {}
        answer = await self._get(f"/v1/files/{quote(name, safe='/')}", wanted)
        with _checked():
            return FileAnswer(parse_name(answer["name"]), tuple(_version(item) for item in answer["versions"]))

    async def find_content(self, content_id: ContentId) -> ContentAnswer:
        """A content's holders and names. Raises FileNotFoundInDirectoryError."""
        answer = await self._get(f"/v1/contents/{content_id}", {})
        with _checked():
            return ContentAnswer(_version(answer), tuple(parse_name(name) for name in answer["names"]))

    async def list_files(
        self, *, prefix: str = "", query: str = "", page_size: int = 100, page_token: str = ""
    ) -> FilePage:
        """A page of the catalogue; it may be empty and yet not the last."""
        wanted = {"prefix": prefix, "query": query, "page_size": str(page_size), "page_token": page_token}
        answer = await self._get("/v1/files", {key: value for key, value in wanted.items() if value})
        with _checked():
            return FilePage(tuple(_listed_file(item) for item in answer["files"]), str(answer["next_page_token"]))

    async def iter_files(self, *, prefix: str = "", query: str = "") -> AsyncGenerator[ListedFile, None]:
        """Every name of the catalogue that matches, page by page."""
        token = ""
        while True:
            page = await self.list_files(prefix=prefix, query=query, page_size=1000, page_token=token)
            for file in page.files:
                yield file
            token = page.next_page_token
            if not token:
                return

    async def iter_peers(self) -> AsyncGenerator[ListedPeer, None]:
        """Every living peer in order of the ids, page by page."""
        token = ""
        while True:
            wanted = {"page_size": "1000"} | ({"page_token": token} if token else {})
            answer = await self._get("/v1/peers", wanted)
            with _checked():
                peers = [_listed_peer(item) for item in answer["peers"]]
                token = str(answer["next_page_token"])
            for peer in peers:
                yield peer
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
                int(answer["live_peers"]),
                int(answer["names"]),
                int(answer["capacity_bytes"]),
                int(answer["free_bytes"]),
            )

    async def place(
        self, name: Name, size_bytes: int, replicas: int, content_id: ContentId | None = None
    ) -> list[PlacedPeer]:
        """Peers to upload to, at most `replicas`. Raises NoSpaceError. Each call moves the round robin on."""
        body: dict[str, Any] = {"name": name, "size_bytes": size_bytes, "replicas": replicas}
        if content_id is not None:
            body["content_id"] = str(content_id)
        answer = await self._send("POST", "/v1/placements", {}, body)
        with _checked():
            return [_placed(item) for item in answer["placements"]]

    async def _get(self, path: str, query: dict[str, str]) -> Any:
        """A look-up, tried again for as long as the client is patient."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._patience_seconds
        for pause in backoff(0.1, 1.0):
            try:
                return await self._send("GET", path, query, None)
            except LocatorUnavailableError:
                if loop.time() + pause >= deadline:
                    raise
            await asyncio.sleep(pause)
        raise AssertionError("backoff does not end")

    async def _send(self, method: str, path: str, query: dict[str, str], body: Any) -> Any:
        import httpx

        try:
            response = await self._http().request(method, self._base_url + path, params=query, json=body)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._away(str(error) or type(error).__name__) from error
        if response.is_success:
            with _checked():
                return response.json()
        raise self._refusal(response)

    def _http(self) -> "httpx.AsyncClient":
        import httpx

        if self._client is None:
            timeout = httpx.Timeout(READ_SECONDS, connect=CONNECT_SECONDS)
            self._client = httpx.AsyncClient(timeout=timeout, transport=self._transport, trust_env=False)
        return self._client

    def _away(self, reason: str) -> LocatorUnavailableError:
        return LocatorUnavailableError(
            f"the locator at {self._base_url} does not answer: {reason}",
            hint="start one with `minga up`, or set MINGA_LOCATOR to the URL of one that runs",
        )

    def _refusal(self, response: "httpx.Response") -> MingaError:
        """Our error for a problem document."""
        try:
            problem = response.json()
            code, detail = str(problem["code"]), str(problem["detail"])
        except (ValueError, KeyError, TypeError):
            return self._away(f"HTTP {response.status_code} that is no answer of a Minga locator")
        if code == Code.STORE_UNAVAILABLE or response.status_code == 503:
            return LocatorUnavailableError(f"the locator at {self._base_url} is not ready: {detail}")
        error = error_from_code(code, detail)
        return LocatorUnavailableError(f"the locator failed: {detail}") if isinstance(error, InternalError) else error


class _checked:  # noqa: N801 - reads as a word
    """Turns whatever is wrong with an answer into one error."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, KeyError | TypeError | ValueError | AttributeError | InvalidArgumentError):
            raise LocatorUnavailableError(
                f"that is no answer of a Minga locator: {error}", hint="check MINGA_LOCATOR"
            ) from error


def _version(item: Any) -> FileVersion:
    return FileVersion(
        ContentId.parse(item["content_id"]),
        int(item["size_bytes"]),
        _nanos(item["published_time"]),
        int(item["complete_count"]),
        int(item["partial_count"]),
        tuple(
            FileSource(
                parse_peer_id(source["peer_id"]),
                parse_address(source["address"]),
                str(source["zone"]),
                HoldingState(source["state"]),
            )
            for source in item["sources"]
        ),
    )


def _listed_file(item: Any) -> ListedFile:
    return ListedFile(
        parse_name(item["name"]),
        ContentId.parse(item["content_id"]),
        int(item["size_bytes"]),
        _nanos(item["published_time"]),
        int(item["version_count"]),
    )


def _listed_peer(item: Any) -> ListedPeer:
    return ListedPeer(
        parse_peer_id(item["peer_id"]),
        parse_address(item["address"]),
        str(item["zone"]),
        parse_generation(int(item["generation"])),
        int(item["capacity_bytes"]),
        int(item["free_bytes"]),
        int(item["file_count"]),
        int(item["active_uploads"]),
        int(item["table_revision"]),
        str(item["software_version"]),
        timedelta(seconds=float(item["lease_remaining_seconds"])),
    )


def _placed(item: Any) -> PlacedPeer:
    return PlacedPeer(
        parse_peer_id(item["peer_id"]), parse_address(item["address"]), str(item["zone"]), int(item["free_bytes"])
    )


def _nanos(text: str) -> int:
    """Nanoseconds since 1970 of an RFC 3339 time, exact to the microsecond."""
    moment = datetime.fromisoformat(text)
    return int(moment.timestamp()) * 10**9 + moment.microsecond * 1000
