"""Choose peers for an upload by round robin: in one script where scripts may span slots, else in steps."""

from collections.abc import Sequence

from minga_core.ids import Address, ContentId, PeerId
from minga_core.names import Name
from minga_core.records import RowKey
from minga_directory import keys
from minga_directory.batch import Batcher
from minga_directory.codec import name_hash, row_field
from minga_directory.directory import PeerRecord, Placement
from minga_directory.lookup import MAX_NAMES_OF_CONTENT, MAX_VERSIONS, Lookup
from minga_directory.peers import living_peers
from minga_directory.scripts import evalsha
from minga_directory.store import Store

PAGE = 64
MAX_SCRIPT_PEERS = 256
"""Peers that one script checks for a placement: about 2 µs of Redis' time each."""


class Placer:
    """Chooses in steps. Raises what redis-py raises."""

    def __init__(self, store: Store, lookup: Lookup) -> None:
        self._store = store
        self._lookup = lookup

    async def place(
        self, name: Name, wanted_bytes: int, replicas: int, content_id: ContentId | None
    ) -> list[Placement]:
        """Up to `replicas` living peers with so many bytes free that do not hold the content, or any of that name."""
        chosen: list[Placement] = []
        asked = 0
        count = int(await self._store.one("ZCARD", keys.PEERS))
        if count == 0:
            return []
        start = int(await self._store.one("INCRBY", keys.CURSOR, replicas)) - replicas
        while len(chosen) < replicas and asked < count:
            ids = await self._ids_from((start + asked) % count, min(PAGE, count - asked))
            fit = await self._fit(ids, wanted_bytes, name, content_id)
            for peer_id in ids:
                asked += 1
                if peer_id in fit:
                    chosen.append(fit[peer_id])
                if len(chosen) == replicas:
                    break
        if len(chosen) == replicas < asked:
            # Past those that were skipped too: else the peer after them would be chosen twice as often.
            await self._store.one("INCRBY", keys.CURSOR, asked - replicas)
        return chosen

    async def _ids_from(self, rank: int, wanted: int) -> list[PeerId]:
        """Peer ids from a rank on, around the end."""
        members = await self._store.one("ZRANGE", keys.PEERS, rank, rank + wanted - 1)
        if len(members) < wanted:
            members += await self._store.one("ZRANGE", keys.PEERS, 0, wanted - len(members) - 1)
        return [PeerId(bytes(member).decode()) for member in members]

    async def _fit(
        self, ids: Sequence[PeerId], wanted_bytes: int, name: Name, content_id: ContentId | None
    ) -> dict[PeerId, Placement]:
        """Those of the peers that live, have room, and do not hold it."""
        roomy = [peer for peer in await living_peers(self._store, ids) if peer.info.free_bytes >= wanted_bytes]
        return {
            peer.info.peer_id: Placement(peer.info.peer_id, peer.info.address, peer.info.zone, peer.info.free_bytes)
            for peer in await self._without_holders(roomy, name, content_id)
        }

    async def _without_holders(
        self, peers: Sequence[PeerRecord], name: Name, content_id: ContentId | None
    ) -> list[PeerRecord]:
        """Those peers whose table has neither the content nor, without one, any content of that name."""
        if content_id is None:
            entries = (await self._lookup.name_entries([name]))[0]
            rows = [RowKey(name, entry.content_id) for entry in entries[:MAX_VERSIONS]]
        else:
            rows = [RowKey(known, content_id) for known in await self._lookup.names_of(content_id)]
        if not rows:
            return list(peers)
        fields = [row_field(row) for row in rows]
        answers = await self._store.run([("HMGET", keys.table(peer.info.peer_id), *fields) for peer in peers])
        return [peer for peer, values in zip(peers, answers, strict=True) if not any(v is not None for v in values)]


class ScriptPlacer(Placer):
    """Chooses in one script; in steps when very many peers are full or hold it already."""

    def __init__(self, store: Store, lookup: Lookup, batcher: Batcher) -> None:
        super().__init__(store, lookup)
        self._batcher = batcher

    async def place(
        self, name: Name, wanted_bytes: int, replicas: int, content_id: ContentId | None
    ) -> list[Placement]:
        """See Placer."""
        if content_id is None:
            holding, held = keys.name(name), name_hash(name)
        else:
            holding = keys.content_names(content_id)
            names = await self._lookup.names_of(content_id)
            held = b"".join(row_field(RowKey(known, content_id)) for known in names)
        arguments = [
            replicas,
            wanted_bytes,
            held,
            b"" if content_id is None else content_id.raw,
            keys.PEER_PREFIX,
            keys.TABLE_PREFIX,
            MAX_VERSIONS if content_id is None else MAX_NAMES_OF_CONTENT,
            MAX_SCRIPT_PEERS,
        ]
        answer = await self._batcher.one(*evalsha("place", [keys.PEERS, keys.CURSOR, holding], arguments))
        if answer is None:
            return await super().place(name, wanted_bytes, replicas, content_id)
        return [_placement(packed) for packed in answer]


def _placement(packed: bytes) -> Placement:
    """A peer as script `place` packs it."""
    peer_id, address, zone, free_bytes = packed.decode().split("\0")
    return Placement(PeerId(peer_id), Address(address), zone, int(free_bytes))
