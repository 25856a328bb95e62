"""The locator's side of Redis. Implements `ports.DirectoryReader`.

Hints say where to look; lease and table, read together from the peer's slot, say what is true. Every read is bounded:
so many versions of a name, so many holders of a content, so many names of a page.
"""

import random
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import chain

from minga_core.errors import PeerNotFoundError, StoreUnavailableError
from minga_core.ids import Address, ContentId, PeerId
from minga_core.names import Name
from minga_core.records import RowKey
from minga_directory import keys
from minga_directory.answers import Found, merge_found, newest_first, placement_of, version_of
from minga_directory.cluster import ClusterClient
from minga_directory.codec import VersionHint, name_hash, row_field, version_hint
from minga_directory.connection import Client, check_access, ping, store_errors
from minga_directory.holders import PEER_FIELDS, HolderReader, peer_record
from minga_directory.ports import CatalogueEntry, CataloguePage, DirectoryStats, PeerRecord, Placement, Version
from minga_directory.scripts import load
from minga_directory.search import page_matcher
from minga_directory.trips import SharedTrips

MAX_VERSIONS = 32
"""Versions of a name that are looked at."""
MAX_VERSIONS_READ = 1_000
"""Versions of a name that the newest are chosen among."""
MAX_VERSIONS_IN_BULK = 4
"""Where many names are looked up at once, one with more versions than this is looked up alone. Bounds one answer."""
MAX_SCANNED_NAMES = 10_000
"""Names that one page of a search reads."""
NAMES_A_READ = 1_000
"""Names that a search reads first; what finds little reads more at a time."""
MAX_NAMES_A_READ = 4_000
_SHARD_SLACK = 8
"""Names read of each shard above its even part of a page, so that most pages need one reading."""
MAX_NAMES_OF_CONTENT = 100
PLACEMENT_PAGE = 64
MAX_ASKED_AT_ONCE = 256
"""Peers that one script asks for a placement: about 2 µs of the store's time each."""
MAX_PEERS_IN_STATS = 20_000


class RedisDirectoryReader:
    """Made over a client, which it closes in the end.

    doubtful: a content that nobody seems to have is StoreUnavailableError, not an empty answer, where no peer has told
    anything yet, or where the store has lost everything so short a time ago that not every peer has told it again.
    """

    def __init__(self, client: Client, rng: random.Random | None = None, *, doubtful: bool = False) -> None:
        self._client = client
        self._doubtful = doubtful
        self._rng = rng or random.Random()  # noqa: S311 - spreading, not secrets
        self._trips = SharedTrips(client)
        self._holders = HolderReader(client, self._rng, self._trips)
        # A Cluster has the keys of one placement in different slots.
        self._place = None if isinstance(client, ClusterClient) else load(client)["place"]

    # Who has it?

    async def find(
        self, name: Name, *, content_id: ContentId | None = None, max_holders: int = 20
    ) -> Sequence[Version]:
        """See DirectoryReader."""
        async with store_errors():
            found = newest_first(await self._versions(name, content_id, max_holders))
            if not found:
                await self._doubt()
        return found

    async def _versions(self, name: Name, content_id: ContentId | None, max_holders: int) -> list[Version]:
        at_once = await self._holders.versions_at_once(name, content_id, max_holders)
        if at_once is not None:
            return newest_first(at_once)[:MAX_VERSIONS]
        wanted = await self._newest_contents(name) if content_id is None else [content_id]
        versions = await self._holders.versions([RowKey(name, content) for content in wanted], max_holders)
        return [version for version in versions if version is not None]

    async def find_newest(self, names: Sequence[Name], *, max_holders: int = 20) -> Sequence[Version | None]:
        """See DirectoryReader."""
        async with store_errors():
            contents = await self._newest_of_each(names)
            in_bulk = [versions if len(versions) <= MAX_VERSIONS_IN_BULK else [] for versions in contents]
            rows = [RowKey(name, content) for name, some in zip(names, in_bulk, strict=True) for content in some]
            answers = iter(await self._holders.versions(rows, max_holders))
        found: list[Version | None] = []
        for name, some, every in zip(names, in_bulk, contents, strict=True):
            living = [version for _ in some if (version := next(answers)) is not None]
            if len(every) > len(some):
                living = list(await self.find(name, max_holders=max_holders))
            found.append(newest_first(living)[0] if living else None)
        if None in found:
            async with store_errors():
                await self._doubt()
        return found

    async def find_content(
        self, content_id: ContentId, *, max_holders: int = 20
    ) -> tuple[Version | None, Sequence[Name]]:
        """See DirectoryReader."""
        async with store_errors():
            sample = await self._holders.of_content(content_id)
            rows = [(hint.peer_id, content_id.raw + hint.name_hash) for hint in sample.hints]
            truth = await self._holders.checked(rows)
            names = await self._names_of(content_id)
            if not any(truth):
                await self._doubt()
        found = [one for one in truth if one is not None]
        if not found:
            return None, ()
        by_peer: dict[PeerId, Found] = {}
        merge_found(by_peer, (one for _, one in found))
        version = version_of(content_id, list(by_peer.values()), max_holders, self._rng, scale=sample.scale)
        checked = {name for name, _ in found}
        # Of a sample, names that were not met may still be held; of all holders, they are not.
        return version, sorted(checked if sample.scale == 1 else checked.union(names))[:MAX_NAMES_OF_CONTENT]

    async def _doubt(self) -> None:
        """Raises StoreUnavailableError while there may be holders that the store has not been told of."""
        if not self._doubtful:
            return
        async with self._client.pipeline(transaction=False) as pipe:
            pipe.exists(keys.BEGUN)
            pipe.exists(keys.FILLING)
            begun, filling = await pipe.execute()
        if not begun:
            raise StoreUnavailableError("no peer has told what it shares: Redis is new, or has lost everything")
        if filling:
            raise StoreUnavailableError("Redis has lost everything: not every peer has told again what it shares")

    async def _newest_contents(self, name: Name) -> list[ContentId]:
        """The newest versions of a name, as hints tell; of very many, among as many as may be read."""
        return (await self._newest_of_each([name]))[0]

    async def _newest_of_each(self, names: Sequence[Name]) -> list[list[ContentId]]:
        return [[hint.content_id for hint in hints[:MAX_VERSIONS]] for hints in await self._version_hints(names)]

    async def _version_hints(self, names: Sequence[Name]) -> list[list[VersionHint]]:
        """What hints tell of the versions of each name, the newest first."""
        if not names:
            return []
        async with self._client.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.hrandfield(keys.name(name), MAX_VERSIONS_READ, withvalues=True)
            answers = await pipe.execute()
        found = []
        for flat in answers:
            fields = zip(flat[::2], flat[1::2], strict=True) if flat else ()
            hints = [version_hint(bytes(field), bytes(value)) for field, value in fields]
            known = [hint for hint in hints if hint is not None]
            found.append(sorted(known, key=lambda hint: (-hint.published_ns, hint.content_id)))
        return found

    async def _names_of(self, content_id: ContentId) -> list[Name]:
        """What a content is called, as hints tell; of very many names a random choice."""
        names = await self._client.hrandfield(keys.called(content_id), MAX_NAMES_OF_CONTENT) or []
        return [Name(bytes(name).decode()) for name in names]

    # What is there?

    async def list_names(
        self, *, prefix: str = "", query: str = "", after: str = "", limit: int = 100
    ) -> CataloguePage:
        """See DirectoryReader."""
        matching = page_matcher(query)
        found: list[bytes] = []
        last, scanned, more = after.encode(), 0, True
        wanted = NAMES_A_READ if query else limit + 1
        async with store_errors():
            # One more than asked for tells whether this is the end.
            while more and len(found) <= limit and scanned < MAX_SCANNED_NAMES:
                batch, more = await self._names_after(prefix.encode(), last, min(wanted, MAX_SCANNED_NAMES - scanned))
                found += matching(batch, limit + 1 - len(found))
                scanned += len(batch)
                last = batch[-1] if batch else last
                wanted = min(2 * wanted, MAX_NAMES_A_READ)
            if len(found) > limit:
                found, last, more = found[:limit], found[limit - 1], True
            names = [Name(name.decode()) for name in found]
            return CataloguePage(await self._entries(names), last.decode() if more else "")

    async def _names_after(self, prefix: bytes, after: bytes, wanted: int) -> tuple[list[bytes], bool]:
        """About the next `wanted` names of all shards in byte order, and whether there may be more."""
        start = b"[" + prefix if after < prefix or not after else b"(" + after
        # 0xff is in no UTF-8: every name that begins with the prefix is below.
        end = b"[" + prefix + b"\xff" if prefix else b"+"
        count = wanted // keys.NAME_SHARDS + _SHARD_SLACK
        async with self._client.pipeline(transaction=False) as pipe:
            for shard in range(keys.NAME_SHARDS):
                pipe.zrangebylex(keys.names(shard), start, end, start=0, num=count)
            shards = await pipe.execute()
        # A shard that gave all it was asked for may have names between its last one and those of others.
        horizon = min((shard[-1] for shard in shards if len(shard) == count), default=None)
        # Sorting runs that are in order already is merging them, and in C.
        names = sorted(chain.from_iterable(shards))
        return names if horizon is None else names[: bisect_right(names, horizon)], horizon is not None

    async def _entries(self, names: Sequence[Name]) -> list[CatalogueEntry]:
        return [
            CatalogueEntry(name, hints[0].content_id, hints[0].size_bytes, hints[0].published_ns, len(hints))
            for name, hints in zip(names, await self._version_hints(names), strict=True)
            if hints
        ]

    # Who is alive?

    async def list_peers(self, *, after: str = "", limit: int = 100) -> tuple[Sequence[PeerRecord], str]:
        """See DirectoryReader."""
        living: list[PeerRecord] = []
        start = f"({after}" if after else "-"
        async with store_errors():
            while len(living) < limit:
                wanted = limit - len(living)
                members = await self._client.zrangebylex(keys.PEERS, start, "+", start=0, num=wanted)
                ids = [PeerId(bytes(member).decode()) for member in members]
                living += await self._living(ids)
                if len(ids) < wanted:
                    return living, ""
                start = f"({ids[-1]}"
        return living, living[-1].info.peer_id

    async def get_peer(self, peer_id: PeerId) -> PeerRecord:
        """See DirectoryReader."""
        async with store_errors():
            living = await self._living([peer_id])
        if not living:
            raise PeerNotFoundError(f"no living peer is called {peer_id}")
        return living[0]

    async def _living(self, ids: Sequence[PeerId]) -> list[PeerRecord]:
        if not ids:
            return []
        async with self._client.pipeline(transaction=False) as pipe:
            for peer_id in ids:
                pipe.hmget(keys.peer(peer_id), PEER_FIELDS)
                pipe.pttl(keys.peer(peer_id))
            answers = await pipe.execute()
        found = zip(ids, answers[::2], answers[1::2], strict=True)
        records = (peer_record(peer_id, fields, left) for peer_id, fields, left in found)
        return [record for record in records if record is not None]

    async def place(
        self, name: Name, size_bytes: int, replicas: int, *, content_id: ContentId | None = None, margin_bytes: int = 0
    ) -> Sequence[Placement]:
        """See DirectoryReader."""
        async with store_errors():
            at_once = await self._placed_at_once(name, size_bytes + margin_bytes, replicas, content_id)
            if at_once is not None:
                return at_once
            return await self._placed_in_steps(name, size_bytes + margin_bytes, replicas, content_id)

    async def _placed_at_once(
        self, name: Name, wanted_bytes: int, replicas: int, content_id: ContentId | None
    ) -> list[Placement] | None:
        """None when one round trip cannot tell: on a Cluster, or when very many peers are full or hold it already."""
        if self._place is None:
            return None
        if content_id is None:
            held = name_hash(name)
        else:
            held = b"".join(row_field(RowKey(known, content_id)) for known in await self._names_of(content_id))
        holding = keys.name(name) if content_id is None else keys.called(content_id)
        arguments = [
            replicas,
            wanted_bytes,
            held,
            b"" if content_id is None else content_id.raw,
            keys.PEER_BEGINNING,
            keys.TABLE_BEGINNING,
            MAX_VERSIONS if content_id is None else MAX_NAMES_OF_CONTENT,
            MAX_ASKED_AT_ONCE,
        ]
        answer = await self._trips.call(self._place, [keys.PEERS, keys.CURSOR, holding], arguments)
        return None if answer is None else [_placement(told) for told in answer]

    async def _placed_in_steps(
        self, name: Name, wanted_bytes: int, replicas: int, content_id: ContentId | None
    ) -> list[Placement]:
        chosen: list[Placement] = []
        asked = 0
        count = int(await self._client.zcard(keys.PEERS))
        if count == 0:
            return []
        start = int(await self._client.incrby(keys.CURSOR, replicas)) - replicas
        while len(chosen) < replicas and asked < count:
            ids = await self._ids_from((start + asked) % count, min(PLACEMENT_PAGE, count - asked))
            fit = await self._fit(ids, wanted_bytes, name, content_id)
            for peer_id in ids:
                asked += 1
                if peer_id in fit:
                    chosen.append(fit[peer_id])
                if len(chosen) == replicas:
                    break
        if len(chosen) == replicas < asked:
            # Past those that were skipped too: else whoever comes after them would be chosen twice as often.
            await self._client.incrby(keys.CURSOR, asked - replicas)
        return chosen

    async def _fit(
        self, ids: Sequence[PeerId], wanted_bytes: int, name: Name, content_id: ContentId | None
    ) -> dict[PeerId, Placement]:
        """Those of the peers that live, have room, and do not hold it."""
        roomy = [peer for peer in await self._living(ids) if peer.info.free_bytes >= wanted_bytes]
        return {peer.info.peer_id: placement_of(peer) for peer in await self._without_holders(roomy, name, content_id)}

    async def _ids_from(self, rank: int, wanted: int) -> list[PeerId]:
        """Peer ids from a rank on, around the end."""
        members = await self._client.zrange(keys.PEERS, rank, rank + wanted - 1)
        if len(members) < wanted:
            members += await self._client.zrange(keys.PEERS, 0, wanted - len(members) - 1)
        return [PeerId(bytes(member).decode()) for member in members]

    async def _without_holders(
        self, peers: Sequence[PeerRecord], name: Name, content_id: ContentId | None
    ) -> list[PeerRecord]:
        """Those peers whose table has neither the content nor, without one, any content of that name."""
        if not peers:
            return []
        if content_id is None:
            rows = [RowKey(name, content) for content in await self._newest_contents(name)]
        else:
            rows = [RowKey(known, content_id) for known in await self._names_of(content_id)]
        if not rows:
            return list(peers)
        async with self._client.pipeline(transaction=False) as pipe:
            for peer in peers:
                pipe.hmget(keys.table(peer.info.peer_id), [row_field(row) for row in rows])
            answers = await pipe.execute()
        return [peer for peer, values in zip(peers, answers, strict=True) if not any(v is not None for v in values)]

    async def stats(self) -> DirectoryStats:
        """See DirectoryReader."""
        peers: list[PeerRecord] = []
        after = ""
        while len(peers) < MAX_PEERS_IN_STATS:
            page, after = await self.list_peers(after=after, limit=1000)
            peers += page
            if not after:
                break
        async with store_errors(), self._client.pipeline(transaction=False) as pipe:
            for shard in range(keys.NAME_SHARDS):
                pipe.zcard(keys.names(shard))
            counts: Iterable[int] = await pipe.execute()
        return DirectoryStats(
            live_peers=len(peers),
            names=sum(counts),
            capacity_bytes=sum(peer.info.capacity_bytes for peer in peers),
            free_bytes=sum(peer.info.free_bytes for peer in peers),
        )

    async def check_access(self) -> None:
        """For the start: raises SettingsError when Redis refuses to be worked with; see `connection.check_access`."""
        await check_access(lambda: self._client.zcard(keys.PEERS))

    async def ping(self) -> None:
        """See DirectoryReader."""
        await ping(self._client)

    async def aclose(self) -> None:
        """Closes the client's connections. Whoever waits for an answer gets an error."""
        await self._trips.aclose()
        await self._client.aclose()


def _placement(told: bytes) -> Placement:
    """A peer as script `place` tells it."""
    peer_id, address, zone, free_bytes = told.decode().split("\0")
    return Placement(PeerId(peer_id), Address(address), zone, int(free_bytes))
