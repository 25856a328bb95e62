"""The routes: parse, ask the reader, shape the answer."""

from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

from fastapi import APIRouter, Query, Request
from fastapi.responses import PlainTextResponse, Response
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from minga_core.errors import Code, FileNotFoundInDirectoryError, NoSpaceError, StoreUnavailableError
from minga_core.ids import ContentId, parse_peer_id
from minga_core.names import parse_name, parse_prefix
from minga_locator.models import (
    ContentInfo,
    FileInfo,
    FileList,
    FileVersion,
    ListedFile,
    PeerInfo,
    PeerList,
    PlacedPeer,
    PlacementList,
    PlacementRequest,
    Stats,
)
from minga_locator.problems import responses
from minga_locator.state import LocatorState
from minga_locator.tokens import decode_token, encode_token

MAX_PAGE_SIZE = 1000
MAX_QUERY_LENGTH = 1024
SPACE_MARGIN_BYTES = 64 * 1024 * 1024
"""A peer with less than this on top of a file's size is not offered it: others upload there at the same moment."""

PageSize = Annotated[int, Query(ge=1, description=f"Entries at most; more than {MAX_PAGE_SIZE:,} are cut to that.")]
PageToken = Annotated[str, Query(description="From `next_page_token`; empty for the first page.", max_length=4096)]

router = APIRouter(prefix="/v1")
health = APIRouter()

T = TypeVar("T")


def state_of(request: Request) -> LocatorState:
    """The app's state."""
    state: LocatorState = request.app.state.locator
    return state


async def _looked_up(
    state: LocatorState, look_up: Callable[[], Awaitable[T | None]], key: tuple[object, ...]
) -> T | None:
    """A cached look-up, counted by its outcome."""
    try:
        found = await state.limited(state.cache.get(key, look_up))
    except StoreUnavailableError:
        state.metrics.looked_up("unavailable")
        raise
    state.metrics.looked_up("hit" if found else "miss")
    return found


@router.get(
    "/files", operation_id="listFiles", tags=["files"], responses=responses(Code.INVALID_ARGUMENT, Code.INVALID_NAME)
)
async def list_files(
    request: Request,
    prefix: Annotated[str, Query(description="Names that begin with this.", max_length=4096)] = "",
    query: Annotated[
        str,
        Query(
            description="A glob that the whole name matches when it has `*`, `?` or `[`, else a part of the name; "
            "case is ignored.",
            max_length=MAX_QUERY_LENGTH,
        ),
    ] = "",
    page_size: PageSize = 100,
    page_token: PageToken = "",
) -> FileList:
    """The catalogue, paged. A page may have fewer files than asked for, or none, and yet not be the last."""
    state = state_of(request)
    after = decode_token(page_token, parse_name) or ""
    page = await state.limited(
        state.reader.list_names(
            prefix=parse_prefix(prefix), query=query, after=after, limit=min(page_size, MAX_PAGE_SIZE)
        )
    )
    files = [ListedFile.of(entry) for entry in page.entries]
    return FileList(files=files, next_page_token=encode_token(page.next_after))


@router.get(
    "/files/{name:path}",
    operation_id="getFile",
    tags=["files"],
    responses=responses(Code.INVALID_NAME, Code.INVALID_ARGUMENT, Code.FILE_NOT_FOUND),
)
async def get_file(
    request: Request,
    name: str,
    content_id: Annotated[str | None, Query(description="Pins a version.", max_length=100)] = None,
) -> FileInfo:
    """A name's versions and who has them. Names with `/` may be percent-encoded or not."""
    state = state_of(request)
    wanted = parse_name(name)
    pinned = ContentId.parse(content_id) if content_id is not None else None
    versions = await _looked_up(state, lambda: state.reader.find(wanted, content_id=pinned), ("name", wanted, pinned))
    if not versions:
        raise FileNotFoundInDirectoryError(f"nobody shares {wanted}" + (f" as {pinned.short}" if pinned else ""))
    return FileInfo(name=wanted, versions=[FileVersion.of(version) for version in versions])


@router.get(
    "/contents/{content_id}",
    operation_id="getContent",
    tags=["files"],
    responses=responses(Code.INVALID_ARGUMENT, Code.FILE_NOT_FOUND),
)
async def get_content(request: Request, content_id: str) -> ContentInfo:
    """A content and who has it, whatever it is called."""
    state = state_of(request)
    wanted = ContentId.parse(content_id)

    async def look_up() -> tuple[object, ...] | None:
        version, names = await state.reader.find_content(wanted)
        return None if version is None else (version, names)

    found = await _looked_up(state, look_up, ("content", wanted))
    if found is None:
        raise FileNotFoundInDirectoryError(f"nobody has {wanted.short}")
    version, names = found
    return ContentInfo(**FileVersion.of(version).model_dump(), names=list(names))  # type: ignore[arg-type, call-overload]


@router.post(
    "/placements",
    operation_id="placeUpload",
    tags=["uploads"],
    responses=responses(Code.INVALID_ARGUMENT, Code.INVALID_NAME, Code.NO_SPACE),
)
async def place_upload(request: Request, wanted: PlacementRequest) -> PlacementList:
    """Peers to upload a file to: round robin over living peers with room, never one that holds it already.

    Fewer than asked for when there are not more; none when every peer with room holds it already. `no_space` when no
    living peer has room for it at all.
    """
    state = state_of(request)
    name = parse_name(wanted.name)
    content_id = ContentId.parse(wanted.content_id) if wanted.content_id is not None else None
    peers = await state.limited(
        state.reader.place(
            name, wanted.size_bytes, wanted.replicas, content_id=content_id, margin_bytes=SPACE_MARGIN_BYTES
        )
    )
    if not peers and not await state.limited(_somebody_has_room(state, wanted.size_bytes)):
        raise NoSpaceError(f"no living peer has room for {wanted.size_bytes:,} bytes")
    state.metrics.placed(len(peers))
    return PlacementList(placements=[PlacedPeer.of(peer) for peer in peers])


async def _somebody_has_room(state: LocatorState, size_bytes: int) -> bool:
    after = ""
    while True:
        peers, after = await state.reader.list_peers(after=after, limit=MAX_PAGE_SIZE)
        if any(peer.info.free_bytes >= size_bytes + SPACE_MARGIN_BYTES for peer in peers):
            return True
        if not after:
            return False


@router.get("/peers", operation_id="listPeers", tags=["peers"], responses=responses(Code.INVALID_ARGUMENT))
async def list_peers(request: Request, page_size: PageSize = 100, page_token: PageToken = "") -> PeerList:
    """Living peers, paged, in order of their ids."""
    state = state_of(request)
    after = decode_token(page_token, parse_peer_id) or ""
    limit = min(page_size, MAX_PAGE_SIZE)
    peers, next_after = await state.limited(
        state.cache.get(("peers", after, limit), lambda: state.reader.list_peers(after=after, limit=limit))
    )
    return PeerList(peers=[PeerInfo.of(peer) for peer in peers], next_page_token=encode_token(next_after))


@router.get(
    "/peers/{peer_id}",
    operation_id="getPeer",
    tags=["peers"],
    responses=responses(Code.INVALID_ARGUMENT, Code.PEER_NOT_FOUND),
)
async def get_peer(request: Request, peer_id: str) -> PeerInfo:
    """A living peer."""
    state = state_of(request)
    return PeerInfo.of(await state.limited(state.reader.get_peer(parse_peer_id(peer_id))))


@router.get("/stats", operation_id="getStats", tags=["peers"], responses=responses())
async def get_stats(request: Request) -> Stats:
    """The directory in figures."""
    state = state_of(request)
    return Stats.of(await state.limited(state.cache.get("stats", state.reader.stats)))


@health.get("/livez", operation_id="live", tags=["health"], response_class=PlainTextResponse)
async def live() -> str:
    """The process runs. Never asks the store."""
    return "ok\n"


@health.get("/readyz", operation_id="ready", tags=["health"], response_class=PlainTextResponse, responses=responses())
async def ready(request: Request) -> str:
    """The store answers."""
    state = state_of(request)
    await state.limited(state.reader.ping(), seconds=1.0)
    return "ok\n"


@health.get("/metrics", operation_id="metrics", tags=["health"], response_class=PlainTextResponse)
async def metrics(request: Request) -> Response:
    """Metrics in the Prometheus text format."""
    return Response(generate_latest(state_of(request).metrics.registry), media_type=CONTENT_TYPE_LATEST)
