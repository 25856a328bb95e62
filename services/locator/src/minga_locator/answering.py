"""What is asked of the directory for a request, whichever way the request came in: by its route, or by the lane."""

from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import TypeVar

from minga_core.errors import (
    FileNotFoundInDirectoryError,
    NoSpaceError,
    PeerUnavailableError,
    StoreUnavailableError,
)
from minga_core.ids import ContentId
from minga_core.names import Name, parse_name
from minga_directory.ports import DirectoryReader, Placement
from minga_locator.encoding import EncodedFile
from minga_locator.models import PlacementRequest
from minga_locator.state import LocatorState

MAX_SOURCES = 20
MAX_PAGE_SIZE = 1000
SPACE_MARGIN_BYTES = 64 * 1024 * 1024
"""A peer with less than this on top of a file's size is not offered it: others upload there at the same moment."""

T = TypeVar("T")


async def found_file(state: LocatorState, name: Name, pinned: ContentId | None) -> EncodedFile:
    """A name's versions. Raises FileNotFoundInDirectoryError when nobody shares it."""

    async def look_up() -> EncodedFile:
        return EncodedFile(name, await state.reader.find(name, content_id=pinned, max_holders=MAX_SOURCES))

    file = await looked_up(state, ("name", name, pinned), look_up, found=_is_found)
    if not file.versions:
        raise FileNotFoundInDirectoryError(f"nobody shares '{name}'" + (f" as {pinned.short}" if pinned else ""))
    return file


def _is_found(file: EncodedFile) -> bool:
    return bool(file.versions)


async def looked_up(
    state: LocatorState, key: Hashable, look_up: Callable[[], Awaitable[T]], *, found: Callable[[T], bool]
) -> T:
    """A cached look-up, counted by its outcome. That nobody has it is not remembered: somebody may share it now."""
    known: T | None = state.cache.known(key)
    if known is not None:
        state.metrics.looked_up("hit")
        return known
    try:
        answer = await state.limited(state.cache.get(key, look_up, keep=found))
    except StoreUnavailableError:
        state.metrics.looked_up("unavailable")
        raise
    state.metrics.looked_up("hit" if found(answer) else "miss")
    return answer


async def placed(state: LocatorState, wanted: PlacementRequest) -> Sequence[Placement]:
    """Peers to upload to. Raises NoSpaceError or PeerUnavailableError when there are none for want of room or peers."""
    peers = await state.limited(_placed(state.reader, wanted))
    state.metrics.placed(len(peers))
    return peers


async def _placed(reader: DirectoryReader, wanted: PlacementRequest) -> Sequence[Placement]:
    name = parse_name(wanted.name)
    content_id = ContentId.parse(wanted.content_id) if wanted.content_id is not None else None
    peers = await reader.place(
        name, wanted.size_bytes, wanted.replicas, content_id=content_id, margin_bytes=SPACE_MARGIN_BYTES
    )
    if not peers:
        await _check_room(reader, wanted.size_bytes)
    return peers


async def _check_room(reader: DirectoryReader, size_bytes: int) -> None:
    """Raises NoSpaceError when no living peer has room, PeerUnavailableError when none is alive."""
    after, alive = "", False
    while True:
        peers, after = await reader.list_peers(after=after, limit=MAX_PAGE_SIZE)
        alive = alive or bool(peers)
        if any(peer.info.free_bytes >= size_bytes + SPACE_MARGIN_BYTES for peer in peers):
            return
        if not after:
            break
    if alive:
        raise NoSpaceError(f"no living peer has room for {size_bytes:,} bytes")
    raise PeerUnavailableError("no peer is alive to upload to")
