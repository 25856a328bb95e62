"""Handlers that describe the living peers, one by one and in total."""

from minga_core.ids import parse_peer_id
from minga_locator.page_tokens import ListKind, decode_token, encode_token
from minga_locator.schemas import MAX_PAGE_SIZE, ListPeersQuery, PeerInfo, PeerList, Stats
from minga_locator.state import LocatorState


async def list_peers(state: LocatorState, query: ListPeersQuery) -> PeerList:
    """Living peers, paged, in order of their ids."""
    after = decode_token(ListKind.PEERS, query.page_token, parse_peer_id) or ""
    limit = min(query.page_size, MAX_PAGE_SIZE)
    peers, next_after = await state.cache.get(
        ("peers", after, limit), lambda: state.reader.list_peers(after=after, limit=limit)
    )
    return PeerList([PeerInfo.of(peer) for peer in peers], encode_token(ListKind.PEERS, next_after))


async def get_peer(state: LocatorState, peer_id: str) -> PeerInfo:
    """A living peer."""
    return PeerInfo.of(await state.reader.get_peer(parse_peer_id(peer_id)))


async def get_stats(state: LocatorState) -> Stats:
    """Totals of the directory."""
    stats = await state.cache.get("stats", state.reader.stats)
    return Stats(stats.live_peers, stats.names, stats.capacity_bytes, stats.free_bytes, stats.lower_bound)
