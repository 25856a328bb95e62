"""The handler that chooses peers for an upload, and permits it to be published."""

from base64 import urlsafe_b64encode

from minga_core.ids import ContentId
from minga_core.names import Name, parse_name
from minga_core.records import RowKey
from minga_locator.schemas import PlacedPeer, PlacementList, PlacementRequest
from minga_locator.state import LocatorState
from minga_runtime.trust.callers import Caller
from minga_runtime.trust.origin import Origin

SPACE_MARGIN_BYTES = 64 * 1024 * 1024
"""Free space that a peer must have beyond the file's size: other clients upload to it at the same moment."""


async def place_upload(state: LocatorState, caller: Caller, origin: Origin, body: PlacementRequest) -> PlacementList:
    """Peers to upload a file to: round robin over living peers with room, never one that holds it already.

    Fewer than requested when there are not more; none at all only when every peer with room holds it already.
    `no_space` when no living peer has room for it, `peer_unavailable` when no peer is alive. Room is 64 MiB more than
    the file. Each call advances the round robin.
    """
    name = parse_name(body.name)
    caller.rights.check_publish(name)
    content_id = _content_id(body.content_id)
    ticket = _ticket(state, caller, origin, name, _content_id(body.publish))
    if body.replicas == 0:
        return PlacementList([], ticket)
    peers = await state.reader.place(
        name, body.size_bytes, body.replicas, content_id=content_id, margin_bytes=SPACE_MARGIN_BYTES
    )
    state.metrics.count_placements(len(peers))
    placed = [PlacedPeer(peer.peer_id, peer.address, peer.zone, peer.free_bytes) for peer in peers]
    return PlacementList(placed, ticket)


def _content_id(text: str | None) -> ContentId | None:
    return None if text is None else ContentId.parse(text)


def _ticket(state: LocatorState, caller: Caller, origin: Origin, name: Name, content_id: ContentId | None) -> str:
    keys = state.keys()
    if keys is None or content_id is None:
        return ""
    key = RowKey(name, content_id)
    state.audit.record("upload_permitted", origin, files=[key], grant=caller.grant)
    return urlsafe_b64encode(keys.ticket(key, state.clock.wall())).decode()
