"""The directory in memory, for unit tests of services: exact time, and a store that can be away.

It computes every answer from the tables of living peers. That is slow and simple; the conformance suite runs over it.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta

from minga_core.clock import Clock, SystemClock
from minga_core.errors import (
    LeaseSupersededError,
    NoSpaceError,
    PeerIdTakenError,
    PeerNotFoundError,
    PeerUnavailableError,
    RegisterAgainError,
    StoreUnavailableError,
    TableRevisionMismatchError,
)
from minga_core.ids import ContentId, PeerId
from minga_core.names import Name
from minga_core.records import REFUSED, FetchClaim, Fetcher, FileRow, Lease, PeerInfo, Publication, RowKey
from minga_directory.answers import Found, default_first, merge_found, version_of
from minga_directory.claims import CLAIM_TTL
from minga_directory.codec import RowSummary
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
from minga_directory.search import page_matcher


@dataclass(slots=True)
class _Granted:
    info: PeerInfo
    token: bytes
    ends_at: float
    table: dict[RowKey, FileRow] = field(default_factory=dict)
    ttl: timedelta = timedelta(0)
    revision: int | None = None
    active_serves: int = 0
    push: int = 0
    """Number of the last push or registration, which makes earlier ones void."""


class MemoryDirectory:
    """Implements DirectoryWriter and DirectoryReader. With `available` False, every call finds the store away."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.available = True
        self._clock = clock or SystemClock()
        self._rng = random.Random()
        self._leases: dict[PeerId, _Granted] = {}
        self._garbage = 0
        self._claims: dict[Name, tuple[Fetcher, float]] = {}
        self._drawn = 0
        self._cursor = 0

    # DirectoryWriter

    async def register(self, info: PeerInfo, ttl: timedelta, token: bytes = b"") -> None:
        old = self._alive(info.peer_id)
        if old and old.token != token:
            raise PeerIdTakenError(f"another peer is {info.peer_id}, at {old.info.address}")
        if old and old.info.generation > info.generation:
            raise _superseded(old)
        lease = _Granted(info, token, self._clock.monotonic() + ttl.total_seconds(), ttl=ttl)
        if info.peer_id in self._leases:
            lease.push = self._leases[info.peer_id].push + 1
        if old and old.info.generation == info.generation:
            lease.table, lease.revision = old.table, old.revision
        elif info.peer_id in self._leases:
            self._garbage += len(self._leases[info.peer_id].table)
        self._leases[info.peer_id] = lease

    async def renew(self, renewals: Sequence[Renewal]) -> Sequence[HeartbeatOutcome | LeaseSupersededError]:
        self._check()
        return [self._renew(renewal) for renewal in renewals]

    def _renew(self, renewal: Renewal) -> HeartbeatOutcome | LeaseSupersededError:
        try:
            lease = self._granted(renewal.lease)
        except RegisterAgainError:
            return HeartbeatOutcome.REGISTER_AGAIN
        except LeaseSupersededError as error:
            return error
        lease.ends_at = self._clock.monotonic() + lease.ttl.total_seconds()
        lease.info = replace(lease.info, free_bytes=renewal.free_bytes)
        lease.active_serves = renewal.active_serves
        return HeartbeatOutcome.OK if lease.revision == renewal.table_revision else HeartbeatOutcome.PUSH_TABLE

    async def publish(self, lease: Lease, publications: Sequence[Publication]) -> Sequence[int]:
        self._granted(lease)
        self._drawn = now = max(self._drawn + 1_000, int(self._clock.wall() * 1_000_000) * 1_000)
        return [
            now + at if each[1:4] == (None, None, False) else self._found_time(each, now)
            for at, each in enumerate(publications)
        ]

    def _found_time(self, publication: Publication, now: int) -> int:
        key, found_ns, changed_ago_ns, join_only = publication[:4]
        published = [(row.published_ns, row.key) for row in self._rows() if row.key.name == key.name]
        known = max([time for time, of in published if of == key], default=0)
        newest = max([time for time, _ in published], default=0)
        if known > 0:
            return known
        if join_only:
            return REFUSED
        if found_ns is None:
            return max(10**9, now - (changed_ago_ns or 0))
        return max(1, min(found_ns, newest - 1_000_000)) if newest > 0 else max(10**9, min(found_ns, now - 1))

    async def claim_fetch(self, lease: Lease, claim: FetchClaim) -> Fetcher | None:
        address, now = self._granted(lease).info.address, self._clock.monotonic()
        held, ends_at = self._claims.get(claim.name, (None, 0.0))
        if ends_at <= now:
            held = None
        own = held is not None and held[0] == lease.peer_id and held[3] == claim.transfer_id
        if claim.release:
            if own:
                del self._claims[claim.name]
            return None
        if held is None or own or held[3] == claim.instead_of:
            held = Fetcher(lease.peer_id, address, claim.http_port, claim.transfer_id)
            self._claims[claim.name] = held, now + CLAIM_TTL.total_seconds()
        return held

    def push_table(self, lease: Lease, *, whole: bool, base_revision: int, revision: int) -> "MemoryPush":
        return MemoryPush(
            lambda: self._pushable(lease, None if whole else base_revision),
            self._clock,
            whole=whole,
            revision=revision,
        )

    def _granted(self, lease: Lease) -> _Granted:
        granted = self._alive(lease.peer_id)
        if granted is None or granted.token != lease.token or granted.info.generation < lease.generation:
            raise RegisterAgainError(f"{lease.peer_id} has no lease of that generation")
        if granted.info.generation > lease.generation:
            raise _superseded(granted)
        return granted

    def _pushable(self, lease: Lease, base_revision: int | None) -> _Granted:
        granted = self._granted(lease)
        if base_revision is not None and granted.revision != base_revision:
            raise TableRevisionMismatchError(f"{lease.peer_id} has a table of another revision")
        return granted

    async def leave(self, lease: Lease) -> bool:
        granted = self._alive(lease.peer_id)
        if granted is None or (granted.info.generation, granted.token) != lease[1:]:
            return False
        del self._leases[lease.peer_id]
        return True

    async def reap(self, *, limit: int = 10_000) -> int:
        self._check()
        for peer_id in [each for each in self._leases if self._alive(each) is None]:
            self._garbage += len(self._leases.pop(peer_id).table)
        collected = min(limit, self._garbage)
        self._garbage -= collected
        return collected

    async def lease_counts(self) -> tuple[int, int]:
        living = len(self._living())
        return living, len(self._leases) - living

    async def ping(self) -> None:
        self._check()

    # DirectoryReader

    async def find(
        self, name: Name, *, content_id: ContentId | None = None, max_holders: int = 20
    ) -> Sequence[Version]:
        contents = {row.key.content_id for row in self._rows() if row.key.name == name}
        return default_first(
            version_of(content, list(self._holding(content, name)), max_holders, self._rng)
            for content in contents
            if content_id in (None, content)
        )

    async def find_newest(self, names: Sequence[Name], *, max_holders: int = 20) -> Sequence[Version | None]:
        found = [await self.find(name, max_holders=max_holders) for name in names]
        return [versions[0] if versions else None for versions in found]

    async def find_content(
        self, content_id: ContentId, *, max_holders: int = 20
    ) -> tuple[Version | None, Sequence[Name]]:
        by_peer: dict[PeerId, Found] = {}
        merge_found(by_peer, self._holding(content_id))
        if not by_peer:
            return None, ()
        names = sorted({row.key.name for row in self._rows() if row.key.content_id == content_id})
        return version_of(content_id, list(by_peer.values()), max_holders, self._rng), names[:100]

    async def list_names(self, *, prefix: str = "", query: str = "", after: str = "", limit: int = 100) -> CatalogPage:
        names = sorted({row.key.name.encode() for row in self._rows()})
        wanted = [name for name in names if name > after.encode() and name.startswith(prefix.encode())]
        found = [Name(name.decode()) for name in page_matcher(query)(wanted, limit + 1)]
        entries = []
        for name in found[:limit]:
            versions = await self.find(name)
            newest = versions[0]
            entries.append(
                CatalogEntry(
                    name,
                    newest.content_id,
                    newest.size_bytes,
                    newest.published_ns,
                    len(versions),
                    newest.newer_incomplete,
                )
            )
        return CatalogPage(entries, found[limit - 1] if len(found) > limit else "")

    async def list_peers(self, *, after: str = "", limit: int = 100) -> tuple[Sequence[PeerRecord], str]:
        peers = [self._record(lease) for lease in self._living() if lease.info.peer_id > after]
        return peers[:limit], peers[limit - 1].info.peer_id if len(peers) > limit else ""

    async def get_peer(self, peer_id: PeerId) -> PeerRecord:
        lease = self._alive(peer_id)
        if lease is None:
            raise PeerNotFoundError(f"no living peer is called {peer_id}")
        return self._record(lease)

    async def place(
        self, name: Name, size_bytes: int, replicas: int, *, content_id: ContentId | None = None, margin_bytes: int = 0
    ) -> Sequence[Placement]:
        living = self._living()
        start = self._cursor % len(living) if living else 0
        chosen: list[Placement] = []
        asked, roomy = 0, False
        for lease in living[start:] + living[:start]:
            if len(chosen) == replicas:
                break
            asked += 1
            info = lease.info
            holds = any(key.name == name if content_id is None else key.content_id == content_id for key in lease.table)
            fits = info.free_bytes >= size_bytes + margin_bytes
            roomy |= fits
            if fits and not holds:
                chosen.append(Placement(info.peer_id, info.address, info.zone, info.free_bytes))
        self._cursor += asked if len(chosen) == replicas else replicas
        if not living:
            raise PeerUnavailableError("no peer is alive")
        if not roomy:
            raise NoSpaceError("no peer has room")
        return chosen

    async def stats(self) -> DirectoryStats:
        infos = [lease.info for lease in self._living()]
        return DirectoryStats(
            live_peers=len(infos),
            names=len({row.key.name for row in self._rows()}),
            capacity_bytes=sum(info.capacity_bytes for info in infos),
            free_bytes=sum(info.free_bytes for info in infos),
        )

    def _check(self) -> None:
        if not self.available:
            raise StoreUnavailableError("the store is away")

    def _alive(self, peer_id: PeerId) -> _Granted | None:
        self._check()
        lease = self._leases.get(peer_id)
        return lease if lease and lease.ends_at > self._clock.monotonic() else None

    def _living(self) -> list[_Granted]:
        self._check()
        return [lease for peer_id in sorted(self._leases) if (lease := self._alive(peer_id))]

    def _record(self, lease: _Granted) -> PeerRecord:
        left = timedelta(seconds=lease.ends_at - self._clock.monotonic())
        return PeerRecord(lease.info, len(lease.table), lease.active_serves, left)

    def _rows(self) -> Iterator[FileRow]:
        return (row for lease in self._living() for row in lease.table.values())

    def _holding(self, content_id: ContentId, name: Name | None = None) -> Iterator[Found]:
        for lease in self._living():
            info = lease.info
            for (row_name, content), size_bytes, modified, published, state, executable, _ in lease.table.values():
                if content == content_id and name in (None, row_name):
                    holder = Holder(info.peer_id, info.address, info.zone, state)
                    yield Found(holder, RowSummary(state, executable, size_bytes, modified, published))


class MemoryPush:
    """Implements TablePush."""

    def __init__(self, lease: Callable[[], _Granted], clock: Clock, *, whole: bool, revision: int) -> None:
        self._lease = lease
        self._clock = clock
        self.ttl = timedelta(0)
        self._whole = whole
        self._revision = revision
        self._number = 0
        self._put: dict[RowKey, FileRow] = {}
        self._remove: list[RowKey] = []

    async def __aenter__(self) -> "MemoryPush":
        lease = self._lease()
        lease.push += 1
        self._number = lease.push
        self.ttl = lease.ttl
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._put, self._remove = {}, []

    async def put(self, rows: Sequence[FileRow]) -> None:
        self._lease()
        self._put.update((row.key, row) for row in rows)

    async def remove(self, keys: Sequence[RowKey]) -> None:
        self._lease()
        self._remove.extend(keys)

    async def renew(self) -> None:
        self._lease().ends_at = self._clock.monotonic() + self.ttl.total_seconds()

    async def commit(self, max_rows: int = 0) -> int:
        lease = self._lease()
        if lease.push != self._number:
            raise TableRevisionMismatchError("another push or registration has begun since")
        if not self._whole and 0 < max_rows < len(lease.table) + len(self._put):
            raise TableRevisionMismatchError("the table may have too many rows")
        lease.table = self._put if self._whole else {**lease.table, **self._put}
        for key in self._remove:
            lease.table.pop(key, None)
        lease.revision = self._revision
        return self._revision


def _superseded(lease: _Granted) -> LeaseSupersededError:
    return LeaseSupersededError(
        f"{lease.info.peer_id} is owned by a later start at {lease.info.address}", owner_address=lease.info.address
    )
