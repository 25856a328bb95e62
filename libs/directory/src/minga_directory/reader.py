"""The locator's side of Redis. Implements `directory.DirectoryReader`.

Index entries say where to look; lease and table, read together from the peer's slot, decide. Every read is bounded: so
many versions of a name, so many holders of a content, so many names of a page.
"""

import random
from bisect import bisect_right
from collections.abc import Sequence
from itertools import chain

from minga_core.errors import PeerNotFoundError, StoreUnavailableError
from minga_core.ids import ContentId, PeerId
from minga_core.names import Name
from minga_directory import keys
from minga_directory.answers import Found, merge_found, version_of
from minga_directory.batch import Batcher
from minga_directory.codec import NameEntry
from minga_directory.directory import CatalogEntry, CatalogPage, DirectoryStats, PeerRecord, Placement, Version
from minga_directory.failures import store_errors
from minga_directory.lookup import MAX_NAMES_OF_CONTENT, Lookup, ScriptLookup
from minga_directory.peers import living_peers
from minga_directory.placement import Placer, ScriptPlacer
from minga_directory.search import page_matcher
from minga_directory.store import Store, check_access, ping

MAX_SCANNED_NAMES = 10_000
"""Names that one page of a search reads."""
NAMES_A_READ = 1_000
"""Names that a search reads first; what finds little reads more at a time."""
MAX_NAMES_A_READ = 4_000
MAX_NAMES_CHECKED = 256
"""Names with several versions on one page of a listing, whose holders are read. Bounds the work for one answer."""
_SHARD_SLACK = 8
"""Names read of each shard above its even part of a page, so that most pages need one reading."""
MAX_PEERS_IN_STATS = 20_000
"""Peers that the figures of the directory are made of; with more, they are a lower bound."""


class RedisDirectoryReader:
    """Made over a store, which it closes in the end.

    refuse_while_recovering: a content that nobody seems to have is StoreUnavailableError, not an empty answer, where no
    peer has pushed anything yet, or where the store lost everything and not every peer has pushed its table again.
    published_only: versions without a time of publication are found by their content id alone: for a network with a
    publication key, where anybody may announce such rows, and times are proven.
    """

    def __init__(
        self,
        store: Store,
        rng: random.Random | None = None,
        *,
        refuse_while_recovering: bool = False,
        published_only: bool = False,
    ) -> None:
        self._store = store
        self._published_only = published_only
        self._refuse_while_recovering = refuse_while_recovering
        self._rng = rng or random.Random()  # noqa: S311 - spreading, not secrets
        self._batcher = Batcher(store)
        self._lookup, self._placer = self._strategies(store)

    def _strategies(self, store: Store) -> tuple[Lookup, Placer]:
        """In one script, where scripts may span slots; else in steps."""
        everything = Lookup(store, self._rng)
        if not store.spans_slots:
            lookup = Lookup(store, self._rng, published_only=self._published_only)
            return lookup, Placer(store, everything)
        lookup = ScriptLookup(store, self._rng, self._batcher, published_only=self._published_only)
        return lookup, ScriptPlacer(store, everything, self._batcher)

    # Who holds it?

    async def find(
        self, name: Name, *, content_id: ContentId | None = None, max_holders: int = 20
    ) -> Sequence[Version]:
        """See DirectoryReader."""
        async with store_errors():
            found = await self._lookup.find(name, content_id, max_holders)
            if not found:
                await self._check_recovered()
        return found

    async def find_newest(self, names: Sequence[Name], *, max_holders: int = 20) -> Sequence[Version | None]:
        """See DirectoryReader."""
        async with store_errors():
            found = await self._lookup.newest(names, max_holders)
            if None in found:
                await self._check_recovered()
        return found

    async def find_content(
        self, content_id: ContentId, *, max_holders: int = 20
    ) -> tuple[Version | None, Sequence[Name]]:
        """See DirectoryReader."""
        async with store_errors():
            found, scale = await self._lookup.holders_of(content_id)
            if not any(found.values()):
                await self._check_recovered()
                return None, ()
        by_peer: dict[PeerId, Found] = {}
        merge_found(by_peer, chain.from_iterable(found.values()))
        version = version_of(content_id, list(by_peer.values()), max_holders, self._rng, scale=scale)
        names = [name for name, living in found.items() if self._is_named(living)]
        # Of a sample, names that were not met may still be held, published or not; of all holders, they are not.
        complete = scale == 1 or self._published_only
        return version, sorted(names if complete else found)[:MAX_NAMES_OF_CONTENT]

    def _is_named(self, found: Sequence[Found]) -> bool:
        """Whether a look-up by name answers what these holders have."""
        return any(one.row.published_ns > 0 or not self._published_only for one in found)

    async def _check_recovered(self) -> None:
        """Raises StoreUnavailableError while there may be holders that have not pushed their tables."""
        if not self._refuse_while_recovering:
            return
        has_epoch, recovering = await self._store.run([("EXISTS", keys.EPOCH), ("EXISTS", keys.RECOVERING)])
        if not has_epoch:
            raise StoreUnavailableError("no peer has pushed its table yet: Redis is new, or has lost everything")
        if recovering:
            raise StoreUnavailableError("Redis has lost everything: not every peer has pushed its table again")

    # The catalog

    async def list_names(self, *, prefix: str = "", query: str = "", after: str = "", limit: int = 100) -> CatalogPage:
        """See DirectoryReader."""
        matching = page_matcher(query)
        found: list[bytes] = []
        last, scanned, more = after.encode(), 0, True
        wanted = NAMES_A_READ if query else limit + 1
        async with store_errors():
            # One more than asked for shows whether this is the end.
            while more and len(found) <= limit and scanned < MAX_SCANNED_NAMES:
                batch, more = await self._names_after(prefix.encode(), last, min(wanted, MAX_SCANNED_NAMES - scanned))
                found += matching(batch, limit + 1 - len(found))
                scanned += len(batch)
                last = batch[-1] if batch else last
                wanted = min(2 * wanted, MAX_NAMES_A_READ)
            if len(found) > limit:
                found, last, more = found[:limit], found[limit - 1], True
            names = [Name(name.decode()) for name in found]
            versions = await self._lookup.name_entries(names)
            if (end := _page_end(versions)) < len(names):
                names, versions, last, more = names[:end], versions[:end], found[end - 1], True
            return CatalogPage(await self._catalog_entries(names, versions), last.decode() if more else "")

    async def _names_after(self, prefix: bytes, after: bytes, wanted: int) -> tuple[list[bytes], bool]:
        """About the next `wanted` names of all shards in byte order, and whether there may be more."""
        start = b"[" + prefix if after < prefix or not after else b"(" + after
        # 0xff is in no UTF-8: every name that begins with the prefix is below.
        end = b"[" + prefix + b"\xff" if prefix else b"+"
        count = wanted // keys.NAME_SHARDS + _SHARD_SLACK
        shards = await self._store.run(
            ("ZRANGEBYLEX", keys.names(shard), start, end, "LIMIT", 0, count) for shard in range(keys.NAME_SHARDS)
        )
        # A shard that gave all it was asked for may have names between its last one and those of others.
        horizon = min((shard[-1] for shard in shards if len(shard) == count), default=None)
        # Sorting runs that are in order already is merging them, and in C.
        names = sorted(chain.from_iterable(shards))
        return names if horizon is None else names[: bisect_right(names, horizon)], horizon is not None

    async def _catalog_entries(
        self, names: Sequence[Name], versions: Sequence[Sequence[NameEntry]]
    ) -> list[CatalogEntry]:
        """The entry of each name; where there are several versions, their holders say which is the default."""
        several = [number for number, entries in enumerate(versions) if len(entries) > 1]
        defaults = await self._lookup.defaults(
            [names[number] for number in several], [versions[number] for number in several], max_holders=1
        )
        listed = [_catalog_entry(name, entries) for name, entries in zip(names, versions, strict=True)]
        for number, version in zip(several, defaults, strict=True):
            if version is not None:
                listed[number] = _catalog_entry(names[number], versions[number], version)
        return [entry for entry in listed if entry is not None]

    # Peers

    async def list_peers(self, *, after: str = "", limit: int = 100) -> tuple[Sequence[PeerRecord], str]:
        """See DirectoryReader."""
        living: list[PeerRecord] = []
        start = f"({after}" if after else "-"
        async with store_errors():
            while len(living) < limit:
                wanted = limit - len(living)
                members = await self._store.one("ZRANGEBYLEX", keys.PEERS, start, "+", "LIMIT", 0, wanted)
                ids = [PeerId(bytes(member).decode()) for member in members]
                living += await living_peers(self._store, ids)
                if len(ids) < wanted:
                    return living, ""
                start = f"({ids[-1]}"
        return living, living[-1].info.peer_id

    async def get_peer(self, peer_id: PeerId) -> PeerRecord:
        """See DirectoryReader."""
        async with store_errors():
            living = await living_peers(self._store, [peer_id])
        if not living:
            raise PeerNotFoundError(f"no living peer is called {peer_id}")
        return living[0]

    async def place(
        self, name: Name, size_bytes: int, replicas: int, *, content_id: ContentId | None = None, margin_bytes: int = 0
    ) -> Sequence[Placement]:
        """See DirectoryReader."""
        async with store_errors():
            search = await self._placer.place(name, size_bytes + margin_bytes, replicas, content_id)
        if (failure := search.failure()) is not None:
            raise failure
        return search.chosen

    async def stats(self) -> DirectoryStats:
        """See DirectoryReader."""
        peers: list[PeerRecord] = []
        after = ""
        while len(peers) < MAX_PEERS_IN_STATS:
            page, after = await self.list_peers(after=after, limit=min(1000, MAX_PEERS_IN_STATS - len(peers)))
            peers += page
            if not after:
                break
        async with store_errors():
            counts = await self._store.run(("ZCARD", keys.names(shard)) for shard in range(keys.NAME_SHARDS))
        return DirectoryStats(
            live_peers=len(peers),
            names=sum(counts),
            capacity_bytes=sum(peer.info.capacity_bytes for peer in peers),
            free_bytes=sum(peer.info.free_bytes for peer in peers),
            lower_bound=bool(after),
        )

    async def knows_publication_keys(self, key_ids: Sequence[str]) -> bool:
        """Whether the network's registries have one of these keys, or are not known to have any."""
        async with store_errors():
            known = await self._store.one("GET", keys.PUBLICATION_KEYS)
        return known is None or any(key_id in bytes(known).decode().split() for key_id in key_ids)

    async def check_access(self) -> None:
        """For the start: raises SettingsError when Redis refuses to be worked with; see `store.check_access`."""
        await check_access(lambda: self._store.one("ZCARD", keys.PEERS))

    async def ping(self) -> None:
        """See DirectoryReader."""
        await ping(self._store)

    async def aclose(self) -> None:
        """Closes the store's connections. Calls that wait for an answer get an error."""
        await self._batcher.aclose()
        await self._store.aclose()


def _catalog_entry(name: Name, entries: Sequence[NameEntry], default: Version | None = None) -> CatalogEntry | None:
    """A name with the version given, or the newest in the index; None when the index has none any more."""
    if not entries:
        return None
    shown = default or entries[0]
    newer_incomplete = default is not None and default.newer_incomplete
    return CatalogEntry(name, shown.content_id, shown.size_bytes, shown.published_ns, len(entries), newer_incomplete)


def _page_end(versions: Sequence[Sequence[NameEntry]]) -> int:
    """How many names a page has: none follows the last whose versions may be checked."""
    several = [number for number, entries in enumerate(versions, start=1) if len(entries) > 1]
    return several[MAX_NAMES_CHECKED - 1] if len(several) >= MAX_NAMES_CHECKED else len(versions)
