"""Both ports in memory, for tests and single-process networks.

It keeps the same three things as the Redis one, so that it shows the same behaviour: leases and tables (the truth),
hints (names and who is said to hold them), and debts (hints that `reap` still has to take away). Time is the clock's.
"""

import random
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta

from minga_core.clock import Clock, SystemClock
from minga_core.errors import (
    LeaseSupersededError,
    PeerNotFoundError,
    RegisterAgainError,
    StoreUnavailableError,
    TableRevisionMismatchError,
)
from minga_core.ids import ContentId, Generation, PeerId
from minga_core.names import Name
from minga_core.records import FileRow, PeerInfo, RowKey
from minga_directory.answers import Found, merge_found, newest_first, placement_of, placement_order, version_of
from minga_directory.directory import (
    CatalogEntry,
    CatalogPage,
    DirectoryStats,
    HeartbeatOutcome,
    Holder,
    PeerRecord,
    Placement,
    Renewal,
    Version,
)
from minga_directory.search import name_matcher

_MAX_NAMES_OF_CONTENT = 100


@dataclass(slots=True)
class _Lease:
    """A peer that registered; after its end it waits here for the reaper."""

    info: PeerInfo
    expires_at: float
    table: dict[RowKey, FileRow] = field(default_factory=dict)
    revision: int | None = None
    active_serves: int = 0


@dataclass(slots=True)
class _Hint:
    """One content under one name, and the peers said to hold it."""

    size_bytes: int
    published_ns: int
    holders: set[PeerId] = field(default_factory=set)


class MemoryDirectory:
    """Implements DirectoryWriter and DirectoryReader. Of one event loop; gone with the process.

    Set `available` to False to see what callers do while the store is away.
    """

    def __init__(self, clock: Clock | None = None, rng: random.Random | None = None) -> None:
        self.available = True
        self._clock = clock or SystemClock()
        self._rng = rng or random.Random()  # noqa: S311 - choice among holders, not secrets
        self._leases: dict[PeerId, _Lease] = {}
        self._hints: dict[Name, dict[ContentId, _Hint]] = {}
        self._names_of: dict[ContentId, set[Name]] = {}
        self._debts: list[tuple[PeerId, RowKey]] = []
        self._cursor = 0
        self._pushes: dict[PeerId, int] = {}

    # Writer port.

    async def register(self, info: PeerInfo, ttl: timedelta) -> None:
        """See DirectoryWriter."""
        self._check()
        old = self._leases.get(info.peer_id)
        if old and old.info.generation > info.generation and self._alive(old):
            raise _superseded(old)
        lease = _Lease(info, self._clock.monotonic() + ttl.total_seconds())
        if old and old.info.generation == info.generation and self._alive(old):
            lease.table, lease.revision = old.table, old.revision
        elif old:
            self._debts.extend((info.peer_id, key) for key in old.table)
        # A push is bound to the lease that it began under; registering ends it.
        self._pushes[info.peer_id] = self._pushes.get(info.peer_id, 0) + 1
        self._leases[info.peer_id] = lease

    async def renew(self, renewals: Sequence[Renewal]) -> Sequence[HeartbeatOutcome | LeaseSupersededError]:
        """See DirectoryWriter."""
        self._check()
        return [self._renew(renewal) for renewal in renewals]

    def _renew(self, renewal: Renewal) -> HeartbeatOutcome | LeaseSupersededError:
        try:
            lease = self._owned(renewal.peer_id, renewal.generation)
        except LeaseSupersededError as error:
            return error
        if lease is None:
            return HeartbeatOutcome.REGISTER_AGAIN
        lease.expires_at = self._clock.monotonic() + renewal.ttl.total_seconds()
        lease.info = replace(lease.info, free_bytes=renewal.free_bytes)
        lease.active_serves = renewal.active_serves
        return HeartbeatOutcome.OK if lease.revision == renewal.table_revision else HeartbeatOutcome.PUSH_TABLE

    def push_table(
        self, peer_id: PeerId, generation: Generation, *, whole: bool, base_revision: int, revision: int
    ) -> "MemoryTablePush":
        """See DirectoryWriter."""
        return MemoryTablePush(self, peer_id, generation, None if whole else base_revision, revision)

    async def leave(self, peer_id: PeerId, generation: Generation) -> bool:
        """See DirectoryWriter."""
        self._check()
        lease = self._leases.get(peer_id)
        if lease is None or not self._alive(lease) or lease.info.generation != generation:
            return False
        del self._leases[peer_id]
        for key in lease.table:
            self._unlist(peer_id, key)
        return True

    async def reap(self, *, limit: int = 10_000) -> int:
        """See DirectoryWriter."""
        self._check()
        for peer_id in [peer_id for peer_id, lease in self._leases.items() if not self._alive(lease)]:
            self._debts.extend((peer_id, key) for key in self._leases.pop(peer_id).table)
        due, self._debts = self._debts[:limit], self._debts[limit:]
        for peer_id, key in due:
            self._unlist(peer_id, key)
        return len(due)

    async def lease_counts(self) -> tuple[int, int]:
        """See DirectoryWriter."""
        self._check()
        live = sum(1 for _ in self._living())
        return live, len(self._leases) - live

    async def ping(self) -> None:
        """See both ports."""
        self._check()

    # Reader port.

    async def find(
        self, name: Name, *, content_id: ContentId | None = None, max_holders: int = 20
    ) -> Sequence[Version]:
        """See DirectoryReader."""
        self._check()
        contents = self._hints.get(name, {}) if content_id is None else (content_id,)
        found = {content: self._holding(RowKey(name, content)) for content in contents}
        return newest_first(
            version_of(content, holders, max_holders, self._rng) for content, holders in found.items() if holders
        )

    async def find_newest(self, names: Sequence[Name], *, max_holders: int = 20) -> Sequence[Version | None]:
        """See DirectoryReader."""
        found = [await self.find(name, max_holders=max_holders) for name in names]
        return [versions[0] if versions else None for versions in found]

    async def find_content(
        self, content_id: ContentId, *, max_holders: int = 20
    ) -> tuple[Version | None, Sequence[Name]]:
        """See DirectoryReader."""
        self._check()
        names, best = [], dict[PeerId, Found]()
        for name in sorted(self._names_of.get(content_id, ()))[:_MAX_NAMES_OF_CONTENT]:
            holding = self._holding(RowKey(name, content_id))
            if holding:
                names.append(name)
            merge_found(best, holding)
        if not best:
            return None, ()
        return version_of(content_id, list(best.values()), max_holders, self._rng), names

    async def list_names(self, *, prefix: str = "", query: str = "", after: str = "", limit: int = 100) -> CatalogPage:
        """See DirectoryReader."""
        self._check()
        matches = name_matcher(query)
        names = sorted(self._hints)
        entries: list[CatalogEntry] = []
        for name in names[bisect_right(names, after) :]:
            if not name.startswith(prefix) or not matches(name):
                continue
            if len(entries) == limit:
                return CatalogPage(entries, entries[-1].name)
            entries.append(self._entry(name))
        return CatalogPage(entries, "")

    async def list_peers(self, *, after: str = "", limit: int = 100) -> tuple[Sequence[PeerRecord], str]:
        """See DirectoryReader."""
        self._check()
        peers = [record for record in self._living() if record.info.peer_id > after]
        return peers[:limit], peers[limit - 1].info.peer_id if len(peers) > limit else ""

    async def get_peer(self, peer_id: PeerId) -> PeerRecord:
        """See DirectoryReader."""
        self._check()
        record = self._record(peer_id)
        if record is None:
            raise PeerNotFoundError(f"no living peer is called {peer_id}")
        return record

    async def place(
        self, name: Name, size_bytes: int, replicas: int, *, content_id: ContentId | None = None, margin_bytes: int = 0
    ) -> Sequence[Placement]:
        """See DirectoryReader."""
        self._check()
        start = self._cursor
        self._cursor += replicas
        chosen: list[Placement] = []
        asked = 0
        for record in placement_order(list(self._living()), start):
            if len(chosen) == replicas:
                break
            asked += 1
            roomy = record.info.free_bytes >= size_bytes + margin_bytes
            if roomy and not self._holds(record.info.peer_id, name, content_id):
                chosen.append(placement_of(record))
        if len(chosen) == replicas:
            self._cursor += asked - replicas
        return chosen

    async def stats(self) -> DirectoryStats:
        """See DirectoryReader."""
        self._check()
        peers = [record.info for record in self._living()]
        return DirectoryStats(
            live_peers=len(peers),
            names=len(self._hints),
            capacity_bytes=sum(info.capacity_bytes for info in peers),
            free_bytes=sum(info.free_bytes for info in peers),
        )

    # What both sides and the push build on.

    def _check(self) -> None:
        if not self.available:
            raise StoreUnavailableError("the store is away")

    def _alive(self, lease: _Lease) -> bool:
        return lease.expires_at > self._clock.monotonic()

    def _living(self) -> Iterator[PeerRecord]:
        return (record for peer_id in sorted(self._leases) if (record := self._record(peer_id)))

    def _record(self, peer_id: PeerId) -> PeerRecord | None:
        lease = self._leases.get(peer_id)
        if lease is None or not self._alive(lease):
            return None
        remaining = timedelta(seconds=lease.expires_at - self._clock.monotonic())
        return PeerRecord(lease.info, lease.revision or 0, len(lease.table), lease.active_serves, remaining)

    def _owned(self, peer_id: PeerId, generation: Generation) -> _Lease | None:
        """The living lease of that generation; None when there is none. Raises LeaseSupersededError."""
        lease = self._leases.get(peer_id)
        if lease is None or not self._alive(lease):
            return None
        if lease.info.generation > generation:
            raise _superseded(lease)
        return lease if lease.info.generation == generation else None

    def _holding(self, key: RowKey) -> list[Found]:
        hint = self._hints.get(key.name, {}).get(key.content_id)
        found = []
        for peer_id in hint.holders if hint else ():
            record = self._record(peer_id)
            row = self._leases[peer_id].table.get(key) if record else None
            if record and row:
                holder = Holder(peer_id, record.info.address, record.info.zone, row.state)
                found.append(Found(holder, row.size_bytes, row.published_ns))
        return found

    def _holds(self, peer_id: PeerId, name: Name, content_id: ContentId | None) -> bool:
        return any(
            key.name == name if content_id is None else key.content_id == content_id
            for key in self._leases[peer_id].table
        )

    def _entry(self, name: Name) -> CatalogEntry:
        hints = self._hints[name]
        content_id, hint = min(hints.items(), key=lambda item: (-item[1].published_ns, item[0]))
        return CatalogEntry(name, content_id, hint.size_bytes, hint.published_ns, len(hints))

    def _begin(self, peer_id: PeerId, generation: Generation, base_revision: int | None) -> int:
        self._check()
        self._pushable(peer_id, generation, base_revision)
        self._pushes[peer_id] = self._pushes.get(peer_id, 0) + 1
        return self._pushes[peer_id]

    def _pushable(self, peer_id: PeerId, generation: Generation, base_revision: int | None) -> _Lease:
        lease = self._owned(peer_id, generation)
        if lease is None:
            raise RegisterAgainError(f"{peer_id} has no lease of that generation")
        if base_revision is not None and lease.revision != base_revision:
            raise TableRevisionMismatchError(f"{peer_id} has a table of another revision")
        return lease

    def _commit(self, push: "MemoryTablePush", put: dict[RowKey, FileRow], remove: Iterable[RowKey]) -> None:
        self._check()
        lease = self._pushable(push.peer_id, push.generation, push.base_revision)
        if self._pushes.get(push.peer_id) != push.ticket:
            raise TableRevisionMismatchError(f"{push.peer_id} has begun another push, or registered, since")
        for row in put.values():
            self._list(push.peer_id, row)
        gone = set(remove) if push.base_revision is not None else lease.table.keys() - put.keys()
        lease.table = {**(lease.table if push.base_revision is not None else {}), **put}
        for key in gone:
            lease.table.pop(key, None)
            self._unlist(push.peer_id, key)
        lease.revision = push.revision

    def _list(self, peer_id: PeerId, row: FileRow) -> None:
        contents = self._hints.setdefault(row.key.name, {})
        hint = contents.setdefault(row.key.content_id, _Hint(row.size_bytes, row.published_ns))
        hint.size_bytes = row.size_bytes
        hint.published_ns = min(hint.published_ns, row.published_ns)
        hint.holders.add(peer_id)
        self._names_of.setdefault(row.key.content_id, set()).add(row.key.name)

    def _unlist(self, peer_id: PeerId, key: RowKey) -> None:
        """Takes the hint away, unless the peer's table of now has the row; the last holder takes the version along."""
        lease = self._leases.get(peer_id)
        contents = self._hints.get(key.name, {})
        hint = contents.get(key.content_id)
        if hint is None or (lease and key in lease.table):
            return
        hint.holders.discard(peer_id)
        if hint.holders:
            return
        del contents[key.content_id]
        if not contents:
            del self._hints[key.name]
        names = self._names_of[key.content_id]
        names.discard(key.name)
        if not names:
            del self._names_of[key.content_id]


class MemoryTablePush:
    """Implements TablePush."""

    def __init__(
        self,
        directory: MemoryDirectory,
        peer_id: PeerId,
        generation: Generation,
        base_revision: int | None,
        revision: int,
    ) -> None:
        self.peer_id = peer_id
        self.generation = generation
        self.base_revision = base_revision
        self.revision = revision
        self.ticket = 0
        self._directory = directory
        self._put: dict[RowKey, FileRow] = {}
        self._remove: list[RowKey] = []

    async def __aenter__(self) -> "MemoryTablePush":
        self.ticket = self._directory._begin(self.peer_id, self.generation, self.base_revision)
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._put, self._remove = {}, []

    async def put(self, rows: Sequence[FileRow]) -> None:
        """See TablePush."""
        self._directory._check()
        self._put.update((row.key, row) for row in rows)

    async def remove(self, keys: Sequence[RowKey]) -> None:
        """See TablePush."""
        self._directory._check()
        self._remove.extend(keys)

    async def commit(self) -> int:
        """See TablePush."""
        self._directory._commit(self, self._put, self._remove)
        return self.revision


def _superseded(lease: _Lease) -> LeaseSupersededError:
    return LeaseSupersededError(
        f"{lease.info.peer_id} is owned by a later start at {lease.info.address}", owner_address=lease.info.address
    )
