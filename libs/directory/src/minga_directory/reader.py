"""The locator's side of Redis. Implements `ports.DirectoryReader`.

Hints say where to look; lease and table, read together from the peer's slot, say what is true. Every read is bounded:
so many versions of a name, so many holders of a content, so many names of a page.
"""

import asyncio
import heapq
import random
from collections.abc import Iterable, Sequence
from datetime import timedelta
from itertools import islice

from minga_core.errors import MingaError, PeerNotFoundError
from minga_core.ids import Address, ContentId, Generation, PeerId
from minga_core.names import Name
from minga_core.records import PeerInfo, RowKey
from minga_directory import keys
from minga_directory.answers import Found, merge_found, newest_first, version_of
from minga_directory.codec import HolderHint, VersionHint, holder_hint, row_facts, row_field, version_hint
from minga_directory.connection import Client, ping, store_errors
from minga_directory.ports import CatalogueEntry, CataloguePage, DirectoryStats, PeerRecord, Version
from minga_directory.search import name_matcher

MAX_VERSIONS = 32
"""Versions of a name that are looked at."""
SAMPLE_HOLDERS = 100
"""Holders of a content that are checked; of more, a random sample stands for all."""
MAX_SCANNED_NAMES = 10_000
"""Names that one page of a search reads."""
NAMES_A_READ = 1000
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
            hints = await self._version_hints(name)
            wanted = [hint for hint in hints if content_id in (None, hint.content_id)]
            versions = await asyncio.gather(*(self._version(name, hint.content_id, max_holders) for hint in wanted))
        return newest_first(version for version in versions if version is not None)

    async def find_content(
        self, content_id: ContentId, *, max_holders: int = 20
    ) -> tuple[Version | None, Sequence[Name]]:
        """See DirectoryReader."""
        with store_errors():
            hints, scale = await self._holder_hints(content_id)
            found = await self._checked(hints, content_id)
        if not found:
            return None, ()
        names = sorted({hint.name for hint, _ in found})
        by_peer: dict[PeerId, Found] = {}
        merge_found(by_peer, (one for _, one in found))
        version = version_of(content_id, list(by_peer.values()), max_holders, self._rng, scale=scale)
        return version, names[:MAX_NAMES_OF_CONTENT]

    async def _version_hints(self, name: Name) -> list[VersionHint]:
        key = keys.name(name)
        if await self._client.hlen(key) <= MAX_VERSIONS:
            fields = await self._client.hgetall(key)
        else:
            _, fields = await self._client.hscan(key, 0, count=MAX_VERSIONS)
        hints = (version_hint(bytes(field), bytes(value)) for field, value in fields.items())
        return [hint for hint in islice(hints, MAX_VERSIONS) if hint is not None]

    async def _version(self, name: Name, content_id: ContentId, max_holders: int) -> Version | None:
        hints, scale = await self._holder_hints(content_id)
        found = await self._checked([hint for hint in hints if hint.name == name], content_id)
        if not found:
            return None
        return version_of(content_id, [one for _, one in found], max_holders, self._rng, scale=scale)

    async def _holder_hints(self, content_id: ContentId) -> tuple[list[HolderHint], float]:
        """Who is said to have a content, and how many each of them stands for."""
        key = keys.holders(content_id)
        count = await self._client.hlen(key)
        if count <= SAMPLE_HOLDERS:
            pairs = list((await self._client.hgetall(key)).items())
        else:
            flat = await self._client.hrandfield(key, SAMPLE_HOLDERS, withvalues=True)
            pairs = list(zip(flat[::2], flat[1::2], strict=True))
        hints = [holder_hint(bytes(field), bytes(value)) for field, value in pairs]
        return [hint for hint in hints if hint is not None], max(1.0, count / SAMPLE_HOLDERS)

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
        last = after
        scanned = 0
        with store_errors():
            while len(found) < limit and scanned < MAX_SCANNED_NAMES:
                batch_size = min(NAMES_A_READ, limit if not query else NAMES_A_READ)
                batch = await self._names_after(prefix, last, batch_size)
                for name in batch:
                    scanned += 1
                    last = name
                    if matches(name):
                        found.append(name)
                        if len(found) == limit:
                            break
                if len(batch) < batch_size:
                    at_end = not batch or last == batch[-1]
                    return CataloguePage(await self._entries(found), "" if at_end else last)
            return CataloguePage(await self._entries(found), last)

    async def _names_after(self, prefix: str, after: str, count: int) -> list[Name]:
        """The next names of all shards in byte order."""
        start = b"[" + prefix.encode() if after < prefix or not after else b"(" + after.encode()
        # 0xff is in no UTF-8: every name that begins with the prefix is below.
        end = b"[" + prefix.encode() + b"\xff" if prefix else b"+"
        async with self._client.pipeline(transaction=False) as pipe:
            for shard in range(keys.NAME_SHARDS):
                pipe.zrangebylex(keys.names(shard), start or b"-", end, start=0, num=count)
            shards = await pipe.execute()
        merged = heapq.merge(*shards)
        return [Name(bytes(name).decode()) for name in islice(merged, count)]

    async def _entries(self, names: Sequence[Name]) -> list[CatalogueEntry]:
        if not names:
            return []
        async with self._client.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.hgetall(keys.name(name))
            answers = await pipe.execute()
        entries = []
        for name, fields in zip(names, answers, strict=True):
            hints = [version_hint(bytes(field), bytes(value)) for field, value in fields.items()]
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
        with store_errors():
            count = await self._client.zcard(keys.PEERS)
            if count == 0:
                return []
            cursor = await self._client.incrby(keys.CURSOR, replicas)
            start = (cursor - replicas) % count
            for offset in range(0, count, PLACEMENT_PAGE):
                ids = await self._ids_from(start + offset, min(PLACEMENT_PAGE, count - offset), count)
                roomy = [peer for peer in await self._living(ids) if peer.info.free_bytes >= size_bytes + margin_bytes]
                chosen += await self._without_holders(roomy, name, content_id)
                if len(chosen) >= replicas:
                    break
        return chosen[:replicas]

    async def _ids_from(self, rank: int, wanted: int, count: int) -> list[PeerId]:
        """Peer ids from a rank on, around the end."""
        rank %= count
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
            rows = [RowKey(name, hint.content_id) for hint in await self._version_hints(name)]
        else:
            hints, _ = await self._holder_hints(content_id)
            rows = [RowKey(known, content_id) for known in {hint.name for hint in hints} | {name}]
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
