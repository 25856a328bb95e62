"""The locator's client: the directory's answers as checked values.

Names, ids and addresses of an answer pass the parsers of `minga_core`; an answer that does not is treated as that of
something that is no locator.
"""

import time
from base64 import b64decode
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from minga_core.ids import (
    Address,
    ContentId,
    PeerId,
    parse_address,
    parse_gateway_url,
    parse_peer_id,
    parse_zone,
)
from minga_core.names import Name, parse_name
from minga_core.records import MAX_TICKET_BYTES, TAG_BYTES, HoldingState
from minga_engine.wire.json_fields import count, flag, items, nanos, seconds, text
from minga_engine.wire.locator_http import LocatorHttp, checked, not_a_locator

if TYPE_CHECKING:
    import httpx

    from minga_runtime.trust.credentials import Credentials
    from minga_runtime.trust.own_grant import OwnGrant

ITER_PAGE_SIZE = 1000
MAX_EMPTY_PAGES = 100_000
"""In a row. A search goes over some thousand names for each page, and may find none for a while."""
MAX_LOOKUP_NAMES = 1000
MAX_LOOKUP_BYTES = 60 * 1024
"""Of one look-up of many names as JSON; the locator takes bodies of at most 64 KiB."""


@dataclass(frozen=True, slots=True)
class ListedFile:
    """A name of the catalogue, with its default version.

    >>> next(client.ls("models/")).size_bytes
    14
    """

    name: Name
    content_id: ContentId
    size_bytes: int
    published_ns: int
    version_count: int
    newer_incomplete: bool
    """A newer version has no complete holder: its upload is under way or was broken off, or its holders are gone."""


@dataclass(frozen=True, slots=True)
class FilePage:
    """A page of the catalogue."""

    files: tuple[ListedFile, ...]
    next_page_token: str
    """Empty at the end."""


@dataclass(frozen=True, slots=True)
class FileSource:
    """A living peer that has a content, or a part of it.

    >>> "peer-1" in {source.peer_id for source in client.info("models/model.bin").versions[0].sources}
    True
    """

    peer_id: PeerId
    address: Address
    zone: str
    state: HoldingState


@dataclass(frozen=True, slots=True)
class FileVersion:
    """One content, with at most 20 of its holders in random order. modified_ns and executable: of the file that was
    published last.

    >>> client.info("models/model.bin").versions[0].size_bytes
    14
    """

    content_id: ContentId
    size_bytes: int
    published_ns: int
    modified_ns: int
    executable: bool
    complete_count: int
    partial_count: int
    sources: tuple[FileSource, ...]
    tag: bytes = b""
    """The proof of published_ns; empty in a network without tags, and of a content without a name."""


@dataclass(frozen=True, slots=True)
class FileAnswer:
    """A name's versions, the newest published first."""

    name: Name
    versions: tuple[FileVersion, ...]
    newer_incomplete: bool = False
    """A newer version than the default has no complete holder."""


@dataclass(frozen=True, slots=True)
class ContentAnswer:
    """A content, whatever it is called."""

    version: FileVersion
    names: tuple[Name, ...]


@dataclass(frozen=True, slots=True)
class ListedPeer:
    """A living peer.

    >>> next(client.peers()).peer_id
    'peer-1'
    """

    peer_id: PeerId
    address: Address
    zone: str
    capacity_bytes: int
    free_bytes: int
    file_count: int
    active_serves: int
    software_version: str
    lease_remaining: timedelta
    gateway_url: str
    """Of its HTTP gateway; empty when others do not reach it."""


@dataclass(frozen=True, slots=True)
class PlacedPeer:
    """A peer chosen for an upload."""

    peer_id: PeerId
    address: Address
    zone: str
    free_bytes: int


@dataclass(frozen=True, slots=True)
class Placements:
    """Where an upload may go."""

    peers: list[PlacedPeer]
    ticket: bytes
    """The permission to publish it, which peers show to the registry; empty in a network without tickets."""


@dataclass(frozen=True, slots=True)
class DirectoryFigures:
    """The directory in figures.

    >>> client.stats().live_peers
    3
    """

    live_peers: int
    names: int
    capacity_bytes: int
    free_bytes: int
    lower_bound: bool
    """Not all peers were counted: there are at least so many names and bytes."""


class LocatorClient:
    """Asks a locator. An async context manager; connects when first used.

    base_url: `http://host:port`, as MINGA_LOCATOR; SettingsError when it is none. retry_budget: how long look-ups are
    retried while no locator answers; 0 stands for one attempt. With more than 0 a locator that is not ready gets at
    least RECOVERY_RETRY_BUDGET. credentials: shown to the locator, which must be of the same network. grant: shown to
    it as well, over https alone.

    Every method raises LocatorUnavailableError when the locator, or its store, does not answer, or when what answers is
    no locator; InvalidArgumentError for input that it refuses; UnauthenticatedError when one end does not accept the
    other's certificate or grant; PermissionDeniedError for names that the grant does not have. All are safe to retry;
    `place` moves the round robin on and is never retried here.
    """

    def __init__(
        self,
        base_url: str,
        *,
        retry_budget: timedelta = timedelta(0),
        transport: "httpx.AsyncBaseTransport | None" = None,
        credentials: "Credentials | None" = None,
        grant: "OwnGrant | None" = None,
    ) -> None:
        self._http = LocatorHttp(base_url, retry_budget, transport, credentials, grant)

    async def __aenter__(self) -> "LocatorClient":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def find_file(self, name: Name, content_id: ContentId | None = None) -> FileAnswer:
        """A name's versions, or the one of that content. Raises FileNotFoundInDirectoryError."""
        wanted = {"content_id": str(content_id)} if content_id is not None else {}
        answer = await self._get(f"/v1/files/{quote(name, safe='/')}", wanted)
        with checked():
            versions = tuple(map(_version, items(answer["versions"])))
            found = FileAnswer(parse_name(answer["name"]), versions, flag(answer["newer_incomplete"]))
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
            answer = await self._http.look_up("POST", "/v1/files:lookup", {}, {"names": some})
            with checked():
                files = answer["files"]
                if [item["name"] for item in files] != some:
                    raise ValueError("it answers what was not asked")
                versions = [item["version"] for item in files]
                found.update((name, _version(it)) for name, it in zip(some, versions, strict=True) if it is not None)
        return found

    async def find_content(self, content_id: ContentId) -> ContentAnswer:
        """A content's holders and names. Raises FileNotFoundInDirectoryError."""
        answer = await self._get(f"/v1/contents/{content_id}", {})
        with checked():
            found = ContentAnswer(_version(answer), tuple(map(parse_name, items(answer["names"]))))
            if found.version.content_id != content_id:
                raise ValueError("it answers what was not asked")
            return found

    async def list_files(
        self, *, prefix: str = "", query: str = "", page_size: int = 100, page_token: str = "", after: str = ""
    ) -> FilePage:
        """A page of the catalogue; it may be empty and yet not the last. page_size: 1 to 1,000. after: names behind
        that text alone, where there is no page_token."""
        wanted = {"prefix": prefix, "query": query, "page_size": str(page_size), "page_token": page_token}
        wanted["after"] = after
        answer = await self._get("/v1/files", {key: value for key, value in wanted.items() if value})
        with checked():
            files = tuple(_listed_file(item) for item in items(answer["files"]))
            return FilePage(files, text(answer["next_page_token"]))

    async def iter_files(self, *, prefix: str = "", query: str = "") -> AsyncGenerator[ListedFile, None]:
        """Every name of the catalogue that matches, in byte order."""
        wanted = {key: value for key, value in (("prefix", prefix), ("query", query)) if value}
        async for page in self._pages("/v1/files", "files", wanted):
            with checked():
                files = [_listed_file(item) for item in page]
            for file in files:
                yield file

    async def iter_peers(self) -> AsyncGenerator[ListedPeer, None]:
        """Every living peer in order of the ids."""
        async for page in self._pages("/v1/peers", "peers", {}):
            with checked():
                peers = [_listed_peer(item) for item in page]
            for peer in peers:
                yield peer

    async def _pages(self, path: str, key: str, wanted: dict[str, str]) -> AsyncGenerator[list[Any], None]:
        """The items of each page of a list."""
        token = ""
        empty_count = 0
        while empty_count <= MAX_EMPTY_PAGES:
            query = wanted | {"page_size": str(ITER_PAGE_SIZE)} | ({"page_token": token} if token else {})
            answer = await self._get(path, query)
            with checked():
                page, following = items(answer[key]), text(answer["next_page_token"])
            yield page
            if following and following == token:
                raise not_a_locator("its pages go in circles")
            token = following
            if not token:
                return
            empty_count = 0 if page else empty_count + 1
        raise not_a_locator(f"{MAX_EMPTY_PAGES:,} pages in a row are empty")

    async def stats(self) -> DirectoryFigures:
        """The directory in figures."""
        answer = await self._get("/v1/stats", {})
        with checked():
            return DirectoryFigures(
                count(answer["live_peers"]),
                count(answer["names"]),
                count(answer["capacity_bytes"]),
                count(answer["free_bytes"]),
                flag(answer["lower_bound"]),
            )

    async def clock_offset(self) -> timedelta | None:
        """How far this machine's clock is ahead of the locator's, to about a second; None when it does not say.

        Half of the time that the request took is off as well.
        """
        from email.utils import parsedate_to_datetime

        before = time.time()
        await self.stats()
        now = (before + time.time()) / 2
        try:
            date = parsedate_to_datetime(self._http.date).timestamp()
        except (ValueError, OverflowError):
            return None
        # Dates of HTTP are cut to whole seconds.
        return timedelta(seconds=now - date - 0.5)

    async def place(self, name: Name, content_id: ContentId, size_bytes: int, replicas: int) -> Placements:
        """Peers to upload to: at most `replicas` (0 to 20), none when every peer with room holds that name already.

        Raises NoSpaceError when no living peer has room, PeerUnavailableError when none is alive.
        """
        body = {"name": name, "size_bytes": size_bytes, "replicas": replicas, "publish": str(content_id)}
        answer = await self._http.send("POST", "/v1/placements", {}, body)
        with checked():
            peers = [_placed(item) for item in items(answer["placements"], replicas)]
            return Placements(peers, _proof(answer["ticket"], MAX_TICKET_BYTES))

    async def _get(self, path: str, query: dict[str, str]) -> Any:
        return await self._http.look_up("GET", path, query, None)


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


def _version(item: Any) -> FileVersion:
    return FileVersion(
        ContentId.parse(item["content_id"]),
        count(item["size_bytes"]),
        nanos(item["published_time"]),
        nanos(item["modified_time"]),
        flag(item["executable"]),
        count(item["complete_count"]),
        count(item["partial_count"]),
        tuple(_source(source) for source in items(item["sources"])),
        _proof(item["tag"], TAG_BYTES),
    )


def _proof(value: Any, most_bytes: int) -> bytes:
    """A tag or a ticket. Raises ValueError."""
    if value == "":
        return b""
    proof = b64decode(text(value), altchars=b"-_", validate=True)
    if len(proof) > most_bytes:
        raise ValueError(f"a tag or a ticket has at most {most_bytes} bytes")
    return proof


def _source(item: Any) -> FileSource:
    return _checked_source(item["peer_id"], item["address"], item["zone"], item["state"])


# A peer is met with every file that it has.
@lru_cache(maxsize=4_096)
def _checked_source(peer_id: str, address: str, zone: str, state: str) -> FileSource:
    return FileSource(parse_peer_id(peer_id), parse_address(address), parse_zone(zone), HoldingState(state))


def _listed_file(item: Any) -> ListedFile:
    return ListedFile(
        parse_name(item["name"]),
        ContentId.parse(item["content_id"]),
        count(item["size_bytes"]),
        nanos(item["published_time"]),
        count(item["version_count"]),
        flag(item["newer_incomplete"]),
    )


def _listed_peer(item: Any) -> ListedPeer:
    return ListedPeer(
        parse_peer_id(item["peer_id"]),
        parse_address(item["address"]),
        parse_zone(item["zone"]),
        count(item["capacity_bytes"]),
        count(item["free_bytes"]),
        count(item["file_count"]),
        count(item["active_serves"]),
        text(item["software_version"]),
        seconds(item["lease_remaining_seconds"]),
        parse_gateway_url(text(item["gateway_url"])),
    )


def _placed(item: Any) -> PlacedPeer:
    return PlacedPeer(
        parse_peer_id(item["peer_id"]),
        parse_address(item["address"]),
        parse_zone(item["zone"]),
        count(item["free_bytes"]),
    )
