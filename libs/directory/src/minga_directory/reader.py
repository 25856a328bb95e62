"""The locator's side of Redis. Implements `ports.DirectoryReader`.

Hints say where to look; lease and table, read together from the peer's slot, say what is true. Every read is bounded:
so many versions of a name, so many holders of a content, so many names of a page.
"""

import asyncio
import heapq
import random
from collections.abc import Iterable, Sequence
from datetime import timedelta
from itertools import takewhile

from minga_core.errors import MingaError, PeerNotFoundError
from minga_core.ids import Address, ContentId, Generation, PeerId
from minga_core.names import Name
from minga_core.records import PeerInfo, RowKey
from minga_directory import keys
from minga_directory.answers import Found, merge_found, newest_first, version_of
from minga_directory.codec import HolderHint, holder_hint, row_facts, row_field, version_hint
from minga_directory.connection import Client, ping, store_errors
from minga_directory.ports import CatalogueEntry, CataloguePage, DirectoryStats, PeerRecord, Version
from minga_directory.search import name_matcher

MAX_VERSIONS = 32
"""Versions of a name that are looked at."""
MAX_VERSIONS_READ = 1_000
"""Versions of a name that the newest are chosen among."""
SAMPLE_HOLDERS = 100
"""Holders of a content that are checked; of more, a random sample stands for all, and counts are estimates."""
HOLDERS_A_PAGE = 1_000
MAX_HOLDER_PAGES = 50
"""Pages that are read to find the holders under a rare name of a content with more holders than are sampled."""
MAX_SCANNED_NAMES = 10_000
"""Names that one page of a search reads."""
NAMES_A_READ = 1_000
_SHARD_SLACK = 8
"""Names read of each shard above its even part of a page, so that most pages need one reading."""
MAX_NAMES_OF_CONTENT = 100
PLACEMENT_PAGE = 64
MAX_PEERS_IN_STATS = 20_000

_PEER_FIELDS = (
    "address", "generation", "zone", "capacity", "free", "uploads", "revision", "files", "software",
)  # fmt: skip


class RedisDirectoryReader:
    """Made over a client, which it closes in the end."""

    def __init__(self, client: Client, rng: random.Random | None = None) -> None:
        self._client = client
        self._rng = rng or random.Random()  # noqa: S311 - spreading, not secrets

    # Who has it?

    async def find(
        self, name: Name, *, content_id: ContentId | None = None, max_holders: int = 20
    ) -> Sequence[Version]:
        """See DirectoryReader."""
        with store_errors():
            wanted = await self._newest_contents(name) if content_id is None else [content_id]
            versions = await asyncio.gather(*(self._version(name, content, max_holders) for content in wanted))
        return newest_first(version for version in versions if version is not None)

    async def find_content(
        self, content_id: ContentId, *, max_holders: int = 20
    ) -> tuple[Version | None, Sequence[Name]]:
        """See DirectoryReader."""
        with store_errors():
            hints, scale = await self._holder_hints(content_id)
            found = await self._checked(hints, content_id)
            names = await self._names_of(content_id)
        if not found:
            return None, ()
        by_peer: dict[PeerId, Found] = {}
        merge_found(by_peer, (one for _, one in found))
        version = version_of(content_id, list(by_peer.values()), max_holders, self._rng, scale=scale)
        checked = {hint.name for hint, _ in found}
        # Of a sample, names that were not met may still be held; of all holders, they are not.
        return version, sorted(checked if scale == 1 else checked.union(names))[:MAX_NAMES_OF_CONTENT]

    async def _newest_contents(self, name: Name) -> list[ContentId]:
        """The newest versions of a name, as hints tell; of very many, among as many as may be read."""
        key = keys.name(name)
        flat = await self._client.hrandfield(key, MAX_VERSIONS_READ, withvalues=True) or []
        hints = [version_hint(bytes(field), bytes(value)) for field, value in zip(flat[::2], flat[1::2], strict=True)]
        known = [hint for hint in hints if hint is not None]
        known.sort(key=lambda hint: -hint.published_ns)
        return [hint.content_id for hint in known[:MAX_VERSIONS]]

    async def _names_of(self, content_id: ContentId) -> list[Name]:
        """What a content is called, as hints tell; of very many names a random choice."""
        names = await self._client.hrandfield(keys.called(content_id), MAX_NAMES_OF_CONTENT) or []
        return [Name(bytes(name).decode()) for name in names]

    async def _version(self, name: Name, content_id: ContentId, max_holders: int) -> Version | None:
        hints, scale = await self._holder_hints(content_id, name)
        found = await self._checked(hints, content_id)
        if not found:
            return None
        return version_of(content_id, [one for _, one in found], max_holders, self._rng, scale=scale)

    async def _holder_hints(self, content_id: ContentId, name: Name | None = None) -> tuple[list[HolderHint], float]:
        """Who is said to have a content (under that name), and how many each of them stands for."""
        key = keys.holders(content_id)
        count = int(await self._client.hlen(key))
        named = count if name is None else int(await self._client.hget(keys.called(content_id), name) or 0)
        if count <= SAMPLE_HOLDERS:
            pairs = list((await self._client.hgetall(key)).items())
        elif 2 * named >= count:
            flat = await self._client.hrandfield(key, SAMPLE_HOLDERS, withvalues=True) or []
            pairs = list(zip(flat[::2], flat[1::2], strict=True))
        else:
            pairs = await self._scanned_holders(key, name or Name(""), min(named, SAMPLE_HOLDERS))
        known = [hint for field, value in pairs if (hint := holder_hint(bytes(field), bytes(value))) is not None]
        hints = [hint for hint in known if name in (None, hint.name)]
        return hints, max(1.0, named / max(1, len(hints)))

    async def _scanned_holders(self, key: str, name: Name, wanted: int) -> list[tuple[bytes, bytes]]:
        """Holders under one of many names of a content, where a random sample might miss them all."""
        found: list[tuple[bytes, bytes]] = []
        cursor = 0
        for _ in range(MAX_HOLDER_PAGES):
            cursor, page = await self._client.hscan(key, cursor, count=HOLDERS_A_PAGE)
            found += [pair for pair in page.items() if bytes(pair[0]).endswith(b"\0" + name.encode())]
            if cursor == 0 or len(found) >= wanted:
                break
        return found[:SAMPLE_HOLDERS]

    async def _checked(self, hints: Sequence[HolderHint], content_id: ContentId) -> list[tuple[HolderHint, Found]]:
        """Those hints whose lease lives and whose table has the row."""
        if not hints:
            return []
        async with self._client.pipeline(transaction=False) as pipe:
            for hint in hints:
                pipe.hmget(keys.peer(hint.peer_id), _PEER_FIELDS)
                pipe.pttl(keys.peer(hint.peer_id))
                pipe.hget(keys.table(hint.peer_id), row_field(RowKey(hint.name, content_id)))
            answers = await pipe.execute()
        checked: list[tuple[HolderHint, Found]] = []
        for hint, fields, left, row in zip(hints, answers[::3], answers[1::3], answers[2::3], strict=True):
            peer = _peer_record(hint.peer_id, fields, left)
            if peer is None or row is None:
                continue
            facts = row_facts(row)
            checked.append((hint, Found(peer, facts.state, facts.size_bytes, facts.published_ns)))
        return checked

    # What is there?

    async def list_names(
        self, *, prefix: str = "", query: str = "", after: str = "", limit: int = 100
    ) -> CataloguePage:
        """See DirectoryReader."""
        matches = name_matcher(query)
        found: list[Name] = []
        last, scanned, more = after, 0, True
        with store_errors():
            # One more than asked for tells whether this is the end.
            while more and len(found) <= limit and scanned < MAX_SCANNED_NAMES:
                batch, more = await self._names_after(prefix, last, NAMES_A_READ if query else limit + 1)
                found += filter(matches, batch)
                scanned += len(batch)
                last = batch[-1] if batch else last
            if len(found) > limit:
                found, last, more = found[:limit], found[limit - 1], True
            return CataloguePage(await self._entries(found), last if more else "")

    async def _names_after(self, prefix: str, after: str, wanted: int) -> tuple[list[Name], bool]:
        """About the next `wanted` names of all shards in byte order, and whether there may be more."""
        start = b"[" + prefix.encode() if after < prefix or not after else b"(" + after.encode()
        # 0xff is in no UTF-8: every name that begins with the prefix is below.
        end = b"[" + prefix.encode() + b"\xff" if prefix else b"+"
        count = wanted // keys.NAME_SHARDS + _SHARD_SLACK
        async with self._client.pipeline(transaction=False) as pipe:
            for shard in range(keys.NAME_SHARDS):
                pipe.zrangebylex(keys.names(shard), start, end, start=0, num=count)
            shards = await pipe.execute()
        # A shard that gave all it was asked for may have names between its last one and those of others.
        horizon = min((shard[-1] for shard in shards if len(shard) == count), default=None)
        merged = heapq.merge(*shards)
        names = merged if horizon is None else takewhile(lambda name: name <= horizon, merged)
        return [Name(bytes(name).decode()) for name in names], horizon is not None

    async def _entries(self, names: Sequence[Name]) -> list[CatalogueEntry]:
        if not names:
            return []
        async with self._client.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.hrandfield(keys.name(name), MAX_VERSIONS_READ, withvalues=True)
            answers = await pipe.execute()
        entries = []
        for name, flat in zip(names, answers, strict=True):
            fields = zip(flat[::2], flat[1::2], strict=True) if flat else ()
            hints = [version_hint(bytes(field), bytes(value)) for field, value in fields]
            known = [hint for hint in hints if hint is not None]
            if known:
                newest = min(known, key=lambda hint: (-hint.published_ns, hint.content_id))
                entries.append(
                    CatalogueEntry(name, newest.content_id, newest.size_bytes, newest.published_ns, len(known))
                )
        return entries

    # Who is alive?

    async def list_peers(self, *, after: str = "", limit: int = 100) -> tuple[Sequence[PeerRecord], str]:
        """See DirectoryReader."""
        living: list[PeerRecord] = []
        start = f"({after}" if after else "-"
        with store_errors():
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
        with store_errors():
            living = await self._living([peer_id])
        if not living:
            raise PeerNotFoundError(f"no living peer is called {peer_id}")
        return living[0]

    async def _living(self, ids: Sequence[PeerId]) -> list[PeerRecord]:
        if not ids:
            return []
        async with self._client.pipeline(transaction=False) as pipe:
            for peer_id in ids:
                pipe.hmget(keys.peer(peer_id), _PEER_FIELDS)
                pipe.pttl(keys.peer(peer_id))
            answers = await pipe.execute()
        found = zip(ids, answers[::2], answers[1::2], strict=True)
        records = (_peer_record(peer_id, fields, left) for peer_id, fields, left in found)
        return [record for record in records if record is not None]

    async def place(
        self, name: Name, size_bytes: int, replicas: int, *, content_id: ContentId | None = None, margin_bytes: int = 0
    ) -> Sequence[PeerRecord]:
        """See DirectoryReader."""
        chosen: list[PeerRecord] = []
        asked = 0
        with store_errors():
            count = int(await self._client.zcard(keys.PEERS))
            if count == 0:
                return []
            start = int(await self._client.incrby(keys.CURSOR, replicas)) - replicas
            while len(chosen) < replicas and asked < count:
                ids = await self._ids_from((start + asked) % count, min(PLACEMENT_PAGE, count - asked))
                fit = await self._fit(ids, size_bytes + margin_bytes, name, content_id)
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
    ) -> dict[PeerId, PeerRecord]:
        """Those of the peers that live, have room, and do not hold it."""
        roomy = [peer for peer in await self._living(ids) if peer.info.free_bytes >= wanted_bytes]
        return {peer.info.peer_id: peer for peer in await self._without_holders(roomy, name, content_id)}

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
        with store_errors():
            async with self._client.pipeline(transaction=False) as pipe:
                for shard in range(keys.NAME_SHARDS):
                    pipe.zcard(keys.names(shard))
                counts: Iterable[int] = await pipe.execute()
        return DirectoryStats(
            live_peers=len(peers),
            names=sum(counts),
            capacity_bytes=sum(peer.info.capacity_bytes for peer in peers),
            free_bytes=sum(peer.info.free_bytes for peer in peers),
        )

    async def ping(self) -> None:
        """See DirectoryReader."""
        await ping(self._client)

    async def aclose(self) -> None:
        """Closes the client's connections."""
        await self._client.aclose()


def _peer_record(peer_id: PeerId, fields: Sequence[bytes | None], left_millis: int) -> PeerRecord | None:
    """A living peer; None when there is no lease, or what is stored is damaged."""
    if left_millis < 0 or any(field is None for field in fields):
        return None
    address, generation, zone, capacity, free, uploads, revision, files, software = (
        bytes(field or b"").decode() for field in fields
    )
    try:
        info = PeerInfo(
            peer_id, Generation(int(generation)), Address(address), zone, int(capacity), int(free), software
        )
        return PeerRecord(info, max(0, int(revision)), int(files), int(uploads), timedelta(milliseconds=left_millis))
    except (ValueError, MingaError):
        return None
