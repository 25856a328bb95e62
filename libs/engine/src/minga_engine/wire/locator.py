"""The locator's client: the directory's answers as checked values (`locator_answers`).

An answer that does not pass is treated as that of something that is no locator.
"""

import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from minga_core.ids import ContentId
from minga_core.names import Name, parse_name
from minga_engine.wire.json_fields import flag, items, text
from minga_engine.wire.locator_answers import (
    ContentAnswer,
    DirectoryFigures,
    FileAnswer,
    FilePage,
    FileVersion,
    ListedFile,
    ListedPeer,
    Placements,
    directory_figures,
    file_version,
    listed_file,
    listed_peer,
    placements,
)
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
            versions = tuple(map(file_version, items(answer["versions"])))
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
                found.update(
                    (name, file_version(it)) for name, it in zip(some, versions, strict=True) if it is not None
                )
        return found

    async def find_content(self, content_id: ContentId) -> ContentAnswer:
        """A content's holders and names. Raises FileNotFoundInDirectoryError."""
        answer = await self._get(f"/v1/contents/{content_id}", {})
        with checked():
            found = ContentAnswer(file_version(answer), tuple(map(parse_name, items(answer["names"]))))
            if found.version.content_id != content_id:
                raise ValueError("it answers what was not asked")
            return found

    async def list_files(
        self, *, prefix: str = "", query: str = "", page_size: int = 100, page_token: str = ""
    ) -> FilePage:
        """A page of the catalogue; it may be empty and yet not the last. page_size: 1 to 1,000."""
        wanted = {"prefix": prefix, "query": query, "page_size": str(page_size), "page_token": page_token}
        answer = await self._get("/v1/files", {key: value for key, value in wanted.items() if value})
        with checked():
            return FilePage(tuple(map(listed_file, items(answer["files"]))), text(answer["next_page_token"]))

    async def iter_files(self, *, prefix: str = "", query: str = "") -> AsyncGenerator[ListedFile, None]:
        """Every name of the catalogue that matches, in byte order."""
        async for page in self.file_pages(prefix=prefix, query=query):
            for file in page.files:
                yield file

    async def file_pages(self, *, prefix: str = "", query: str = "", after: str = "") -> AsyncGenerator[FilePage, None]:
        """As `iter_files`, by pages, for who may not want all of them. after: names behind that text alone."""
        wanted = {key: value for key, value in (("prefix", prefix), ("query", query), ("after", after)) if value}
        async for page, following in self._pages("/v1/files", "files", wanted):
            with checked():
                files = tuple(map(listed_file, page))
            yield FilePage(files, following)

    async def iter_peers(self) -> AsyncGenerator[ListedPeer, None]:
        """Every living peer in order of the ids."""
        async for page, _ in self._pages("/v1/peers", "peers", {}):
            with checked():
                peers = [listed_peer(item) for item in page]
            for peer in peers:
                yield peer

    async def _pages(self, path: str, key: str, wanted: dict[str, str]) -> AsyncGenerator[tuple[list[Any], str], None]:
        """The items of each page of a list, and the token of the page that follows, empty at the end."""
        token = ""
        empty_count = 0
        while empty_count <= MAX_EMPTY_PAGES:
            # The first page alone is behind a name; the others are behind the page before.
            query = {name: value for name, value in wanted.items() if name != "after"} if token else dict(wanted)
            query |= {"page_size": str(ITER_PAGE_SIZE)} | ({"page_token": token} if token else {})
            answer = await self._get(path, query)
            with checked():
                page, following = items(answer[key]), text(answer["next_page_token"])
            if following and following == token:
                raise not_a_locator("its pages go in circles")
            yield page, following
            token = following
            if not token:
                return
            empty_count = 0 if page else empty_count + 1
        raise not_a_locator(f"{MAX_EMPTY_PAGES:,} pages in a row are empty")

    async def stats(self) -> DirectoryFigures:
        """The directory in figures."""
        answer = await self._get("/v1/stats", {})
        with checked():
            return directory_figures(answer)

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
            return placements(answer, replicas)

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
