"""Choose peers for an upload by round robin: in scripts where they may span slots, else in steps.

The number of peers that are asked for one placement is bounded, so that one that fits nowhere costs no more than others
may wait for. The next one goes on behind them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from minga_core.errors import MingaError, NoSpaceError, PeerUnavailableError
from minga_core.ids import Address, ContentId, PeerId
from minga_core.names import Name
from minga_core.records import RowKey
from minga_directory import keys
from minga_directory.batch import Batcher
from minga_directory.codec import row_field
from minga_directory.directory import Placement
from minga_directory.lookup import MAX_NAMES_OF_CONTENT, MAX_VERSIONS, Lookup
from minga_directory.scripts import evalsha
from minga_directory.store import Store

PAGE = 256
"""Peers that are asked together: about 2 µs of Redis' time each, in one script."""
MAX_ASKED = 2_048
"""Peers that are asked for one placement."""


@dataclass(slots=True)
class Search:
    """A placement under way."""

    wanted_bytes: int
    replicas: int
    start: int = 0
    """Rank of the first peer that was asked."""
    count: int = 0
    """Peers in all."""
    asked: int = 0
    alive: bool = False
    """Whether a peer that was asked lives."""
    roomy: bool = False
    """Whether one has room, a holder or not."""
    chosen: list[Placement] = field(default_factory=list)

    @property
    def lacking(self) -> int:
        """How many replicas have no peer yet."""
        return self.replicas - len(self.chosen)

    @property
    def ended(self) -> bool:
        """Whether nobody else is asked."""
        return not self.lacking or self.asked >= min(self.count, MAX_ASKED)

    @property
    def skipped(self) -> int:
        """Peers that the cursor has still to be moved by: else the peer after them would be chosen twice as often."""
        return max(0, self.asked - self.replicas) if not self.lacking or self.asked < self.count else 0

    def failure(self) -> MingaError | None:
        """Why nobody was chosen; None when somebody was, or everybody with room holds it already."""
        if self.chosen or self.roomy:
            return None
        if self.alive:
            return NoSpaceError(f"no living peer has room for {self.wanted_bytes:,} bytes")
        return PeerUnavailableError("no peer is alive to upload to")


class Placer:
    """Chooses in steps. Raises what redis-py raises."""

    def __init__(self, store: Store, lookup: Lookup) -> None:
        self._store = store
        self._lookup = lookup

    async def place(self, name: Name, wanted_bytes: int, replicas: int, content_id: ContentId | None) -> Search:
        """Up to `replicas` living peers with so many bytes free that do not hold the content, or any of that name."""
        fields = [row_field(row) for row in await self._rows(name, content_id)]
        count, after = await self._store.run([("ZCARD", keys.PEERS), ("INCRBY", keys.CURSOR, replicas)])
        search = Search(wanted_bytes, replicas, int(after) - replicas, int(count))
        while not search.ended:
            await self._ask(search, fields)
        await self._move_cursor(search)
        return search

    async def _move_cursor(self, search: Search) -> None:
        if search.skipped:
            await self._store.one("INCRBY", keys.CURSOR, search.skipped)

    async def _rows(self, name: Name, content_id: ContentId | None) -> list[RowKey]:
        """The rows of which a peer that is chosen has none."""
        if content_id is not None:
            return [RowKey(known, content_id) for known in await self._lookup.names_of(content_id)]
        entries = (await self._lookup.name_entries([name]))[0]
        return [RowKey(name, entry.content_id) for entry in entries[:MAX_VERSIONS]]

    async def _ask(self, search: Search, fields: Sequence[bytes]) -> None:
        """Asks the next page of peers."""
        ids = await self._ids_from(
            (search.start + search.asked) % search.count, min(PAGE, search.count - search.asked, MAX_ASKED)
        )
        # A lease that is over has no fields.
        answers = await self._store.run([("HMGET", keys.peer(each), "address", "zone", "free") for each in ids])
        living = [_placement(each, *answer) for each, answer in zip(ids, answers, strict=True) if None not in answer]
        roomy = [each for each in living if each.free_bytes >= search.wanted_bytes]
        search.alive |= bool(living)
        search.roomy |= bool(roomy)
        fit = {each.peer_id: each for each in await self._without_rows(roomy, fields)}
        for each in ids:
            search.asked += 1
            if each in fit:
                search.chosen.append(fit[each])
            if not search.lacking:
                return
        # Entries may have gone meanwhile: a page that is empty ends the search.
        search.count = search.count if ids else search.asked

    async def _ids_from(self, rank: int, wanted: int) -> list[PeerId]:
        """Peer ids from a rank on, around the end."""
        members = await self._store.one("ZRANGE", keys.PEERS, rank, rank + wanted - 1)
        if len(members) < wanted:
            members += await self._store.one("ZRANGE", keys.PEERS, 0, wanted - len(members) - 1)
        return [PeerId(bytes(member).decode()) for member in members]

    async def _without_rows(self, peers: Sequence[Placement], fields: Sequence[bytes]) -> list[Placement]:
        if not fields:
            return list(peers)
        answers = await self._store.run([("HMGET", keys.table(peer.peer_id), *fields) for peer in peers])
        return [peer for peer, values in zip(peers, answers, strict=True) if not any(v is not None for v in values)]


class ScriptPlacer(Placer):
    """Chooses in one script, and in some when many peers are full or hold it already."""

    def __init__(self, store: Store, lookup: Lookup, batcher: Batcher) -> None:
        super().__init__(store, lookup)
        self._batcher = batcher

    async def place(self, name: Name, wanted_bytes: int, replicas: int, content_id: ContentId | None) -> Search:
        """See Placer."""
        holding: str | bytes
        held: str
        if content_id is None:
            holding, held, most, fields = keys.name(name), name, MAX_VERSIONS, []
        else:
            holding, held, most = keys.content_names(content_id), "", MAX_NAMES_OF_CONTENT
            fields = [row_field(row) for row in await self._rows(name, content_id)]
        fixed = [wanted_bytes, held, keys.PEER_PREFIX, keys.TABLE_PREFIX, most, PAGE]
        search = Search(wanted_bytes, replicas)
        while not search.asked or not search.ended:
            first = (search.start + search.asked) if search.asked else ""
            script = evalsha("place", [keys.PEERS, keys.CURSOR, holding], [search.lacking, *fixed, first, *fields])
            answer = await self._batcher.one(*script)
            if answer is None:
                return await super().place(name, wanted_bytes, replicas, content_id)
            start, search.count, asked, alive, roomy, *chosen = answer
            search.start = search.start if search.asked else start
            search.asked += asked
            search.alive |= bool(alive)
            search.roomy |= bool(roomy)
            search.chosen += map(_unpacked, chosen)
            if not asked:
                break
        if search.asked > PAGE or search.lacking:
            # The script has done so where it was enough.
            await self._move_cursor(search)
        return search


def _placement(peer_id: PeerId, address: Any, zone: Any, free_bytes: Any) -> Placement:
    return Placement(peer_id, Address(bytes(address).decode()), bytes(zone).decode(), int(free_bytes))


def _unpacked(packed: bytes) -> Placement:
    """A peer as script `place` packs it."""
    peer_id, address, zone, free_bytes = packed.decode().split("\0")
    return Placement(PeerId(peer_id), Address(address), zone, int(free_bytes))
