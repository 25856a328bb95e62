"""The routes of /v1: parse, ask the reader, shape the answer."""

from typing import Annotated
from urllib.parse import unquote_to_bytes

from fastapi import APIRouter, Query, Request
from starlette.convertors import PathConvertor, register_url_convertor
from starlette.types import Scope

from minga_core.errors import Code, FileNotFoundInDirectoryError, InvalidNameError
from minga_core.ids import ContentId, parse_peer_id
from minga_core.names import parse_name, parse_prefix
from minga_locator.answering import MAX_PAGE_SIZE, MAX_SOURCES, found_file, looked_up, placed
from minga_locator.models import (
    ContentInfo,
    FileInfo,
    FileList,
    FileVersion,
    FoundFile,
    FoundFileList,
    ListedFile,
    LookupRequest,
    PeerInfo,
    PeerList,
    PlacedPeer,
    PlacementList,
    PlacementRequest,
    Stats,
)
from minga_locator.openapi import store_problems
from minga_locator.state import state_of
from minga_locator.tokens import ListKind, decode_token, encode_token

MAX_LOOKUP_SOURCES = 8
"""Of each name where many are looked up at once: enough for small files, and an answer stays below 512 KiB."""

PageSize = Annotated[int, Query(ge=1, description=f"Entries at most; more than {MAX_PAGE_SIZE:,} counts as that.")]
PageToken = Annotated[str, Query(description="From `next_page_token`; empty for the first page.", max_length=4096)]


class _AnyText(PathConvertor):
    """Like Starlette's `path`, but line breaks match too: a name that has one is refused as a name, not as a route."""

    regex = "[\\s\\S]*"


register_url_convertor("any", _AnyText())

router = APIRouter(prefix="/v1")


@router.get(
    "/files",
    operation_id="listFiles",
    tags=["files"],
    responses=store_problems(Code.INVALID_ARGUMENT, Code.INVALID_NAME),
)
async def list_files(
    request: Request,
    prefix: Annotated[str, Query(description="Names that begin with this.", max_length=4096)] = "",
    query: Annotated[
        str,
        Query(
            description="A glob that the whole name matches when it has `*`, `?` or `[` (`*` spans `/`), else a part "
            "of the name; case is ignored.",
            max_length=1024,
        ),
    ] = "",
    page_size: PageSize = 100,
    page_token: PageToken = "",
) -> FileList:
    """The catalogue, paged, in byte order of the names.

    A page may have fewer files than asked for, or none, and yet not be the last: follow `next_page_token` until it is
    empty. Files are listed from hints: one whose last holder went away seconds ago may still be named.
    """
    state = state_of(request)
    after = decode_token(ListKind.FILES, page_token, parse_name) or ""
    work = state.reader.list_names(
        prefix=parse_prefix(prefix), query=query, after=after, limit=min(page_size, MAX_PAGE_SIZE)
    )
    page = await state.limited(work)
    files = [ListedFile.of(entry) for entry in page.entries]
    return FileList(files=files, next_page_token=encode_token(ListKind.FILES, page.next_after))


@router.get(
    "/files/{name:any}",
    operation_id="getFile",
    tags=["files"],
    responses=store_problems(Code.INVALID_NAME, Code.INVALID_ARGUMENT, Code.FILE_NOT_FOUND),
)
async def get_file(
    request: Request,
    name: str,
    content_id: Annotated[str | None, Query(description="Pins a version.", max_length=100)] = None,
) -> FileInfo:
    """A name's versions, the newest published first, and who has them.

    The name is percent-encoded UTF-8; its `/` may be encoded or not. It is normalised to NFC.
    """
    state = state_of(request)
    _check_utf8(request.scope)
    wanted = parse_name(name)
    pinned = ContentId.parse(content_id) if content_id is not None else None
    file = await found_file(state, wanted, pinned)
    return FileInfo(name=wanted, versions=[FileVersion.of(version) for version in file.versions])


@router.post(
    "/files:lookup",
    operation_id="lookUpFiles",
    tags=["files"],
    responses=store_problems(Code.INVALID_ARGUMENT, Code.INVALID_NAME),
)
async def look_up_files(request: Request, wanted: LookupRequest) -> FoundFileList:
    """The newest published version of each of many names, and at most 8 of those who have it.

    For fetching folders of small files: one request instead of one for each of at most 256 names. A name that nobody
    shares is told as such and is no error. Changes nothing and is safe to retry.
    """
    state = state_of(request)
    names = tuple(parse_name(name) for name in wanted.names)
    versions = await looked_up(
        state,
        ("names", names),
        lambda: state.reader.find_newest(names, max_holders=MAX_LOOKUP_SOURCES),
        found=lambda answer: None not in answer,
    )
    files = [
        FoundFile(name=name, version=None if version is None else FileVersion.of(version))
        for name, version in zip(names, versions, strict=True)
    ]
    return FoundFileList(files=files)


@router.get(
    "/contents/{content_id}",
    operation_id="getContent",
    tags=["files"],
    responses=store_problems(Code.INVALID_ARGUMENT, Code.FILE_NOT_FOUND),
)
async def get_content(request: Request, content_id: str) -> ContentInfo:
    """A content and who has it, whatever it is called."""
    state = state_of(request)
    wanted = ContentId.parse(content_id)
    version, names = await looked_up(
        state,
        ("content", wanted),
        lambda: state.reader.find_content(wanted, max_holders=MAX_SOURCES),
        found=lambda answer: answer[0] is not None,
    )
    if version is None:
        raise FileNotFoundInDirectoryError(f"nobody has {wanted.short}")
    return ContentInfo.named(version, names)


@router.post(
    "/placements",
    operation_id="placeUpload",
    tags=["uploads"],
    responses=store_problems(Code.INVALID_ARGUMENT, Code.INVALID_NAME, Code.NO_SPACE, Code.PEER_UNAVAILABLE),
)
async def place_upload(request: Request, wanted: PlacementRequest) -> PlacementList:
    """Peers to upload a file to: round robin over living peers with room, never one that holds it already.

    Fewer than asked for when there are not more; none at all only when every peer with room holds it already.
    `no_space` when no living peer has room for it, `peer_unavailable` when no peer is alive. Room is 64 MiB more than
    the file. Each call moves the round robin on.
    """
    peers = await placed(state_of(request), wanted)
    return PlacementList(placements=[PlacedPeer.of(peer) for peer in peers])


@router.get("/peers", operation_id="listPeers", tags=["peers"], responses=store_problems(Code.INVALID_ARGUMENT))
async def list_peers(request: Request, page_size: PageSize = 100, page_token: PageToken = "") -> PeerList:
    """Living peers, paged, in order of their ids."""
    state = state_of(request)
    after = decode_token(ListKind.PEERS, page_token, parse_peer_id) or ""
    limit = min(page_size, MAX_PAGE_SIZE)
    work = state.cache.get(("peers", after, limit), lambda: state.reader.list_peers(after=after, limit=limit))
    peers, next_after = await state.limited(work)
    shown = [PeerInfo.of(peer) for peer in peers]
    return PeerList(peers=shown, next_page_token=encode_token(ListKind.PEERS, next_after))


@router.get(
    "/peers/{peer_id}",
    operation_id="getPeer",
    tags=["peers"],
    responses=store_problems(Code.INVALID_ARGUMENT, Code.PEER_NOT_FOUND),
)
async def get_peer(request: Request, peer_id: str) -> PeerInfo:
    """A living peer."""
    state = state_of(request)
    return PeerInfo.of(await state.limited(state.reader.get_peer(parse_peer_id(peer_id))))


@router.get("/stats", operation_id="getStats", tags=["peers"], responses=store_problems())
async def get_stats(request: Request) -> Stats:
    """The directory in figures."""
    state = state_of(request)
    return Stats.of(await state.limited(state.cache.get("stats", state.reader.stats)))


def _check_utf8(scope: Scope) -> None:
    """Raises InvalidNameError when the path's bytes are not UTF-8: servers replace what is not before we see it."""
    try:
        unquote_to_bytes(scope["raw_path"]).decode()
    except UnicodeDecodeError:
        raise InvalidNameError("the name in the path is not valid UTF-8") from None
