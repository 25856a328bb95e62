"""The protocols of the directory: the registry writes through `DirectoryWriter`, the locator reads through
`DirectoryReader`.

All methods raise StoreUnavailableError, within their time limit, when the store is away; none of them ever hangs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import NamedTuple, Protocol

from minga_core.errors import LeaseSupersededError, StoreUnavailableError
from minga_core.ids import Address, ContentId, PeerId
from minga_core.names import Name
from minga_core.records import FetchClaim, Fetcher, FileRow, HoldingState, Lease, PeerInfo, Publication, RowKey


class HeartbeatOutcome(StrEnum):
    """The state that a heartbeat found, and so what its peer has to do."""

    OK = "ok"
    REGISTER_AGAIN = "register_again"
    PUSH_TABLE = "push_table"


@dataclass(frozen=True, slots=True)
class Renewal:
    """A heartbeat: whose lease is renewed, for as long as it was granted, and what its peer reports of itself."""

    lease: Lease
    table_revision: int
    free_bytes: int
    active_serves: int


@dataclass(frozen=True, slots=True)
class PeerRecord:
    """A living peer, as the directory knows it."""

    info: PeerInfo
    """As registered, with the free bytes of the last heartbeat."""
    file_count: int
    active_serves: int
    lease_remaining: timedelta


class Holder(NamedTuple):
    """A living peer that has a content, or a part of it. A tuple: twenty of them are made for each look-up."""

    peer_id: PeerId
    address: Address
    zone: str
    state: HoldingState


class Placement(NamedTuple):
    """A living peer that an upload may go to."""

    peer_id: PeerId
    address: Address
    zone: str
    free_bytes: int
    """As of its last heartbeat."""


@dataclass(frozen=True, slots=True)
class Version:
    """One content under one name, with living holders (at least one)."""

    content_id: ContentId
    size_bytes: int
    published_ns: int
    """The latest that a holder has pushed; where only a sample of them was read, also one that has gone since."""
    modified_ns: int
    """This and the next are of the file of the holder with the latest publication; of several, a complete one's that
    was modified first."""
    executable: bool
    holders: Sequence[Holder]
    """A random sample in random order, complete ones first when there are more than asked for."""
    complete_count: int
    """Living complete holders in all."""
    partial_count: int
    newer_incomplete: bool = False
    """Set on the default version of a name when a newer one has no complete holder."""


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """A name in a listing, with its default version. The holders of a name's only version are not checked."""

    name: Name
    content_id: ContentId
    size_bytes: int
    published_ns: int
    version_count: int
    newer_incomplete: bool = False


@dataclass(frozen=True, slots=True)
class CatalogPage:
    """A page of names in byte order."""

    entries: Sequence[CatalogEntry]
    next_after: str
    """Pass as `after` for the next page; empty at the end."""


@dataclass(frozen=True, slots=True)
class DirectoryStats:
    """The directory in figures."""

    live_peers: int
    names: int
    """Names in the catalog; may count a name whose last holder died within the last seconds."""
    capacity_bytes: int
    free_bytes: int
    lower_bound: bool = False
    """Set when there may be more peers than were counted: all but `names` are at least so much."""


class TablePush(Protocol):
    """One push of a table: rows go in, `commit` makes them visible at once, anything else leaves the old table.

    Used as an async context manager; leaving it without `commit` discards what was staged.
    """

    @property
    def ttl(self) -> timedelta:
        """How long the lease was granted for, by whichever registry; known once the block is entered."""
        ...

    async def __aenter__(self) -> "TablePush": ...

    async def __aexit__(self, *exc: object) -> None: ...

    async def put(self, rows: Sequence[FileRow]) -> None:
        """Stages rows to add or replace (at most 1,000 a call). Times of publishing that are ahead of the store's clock
        count as that of the push."""
        ...

    async def remove(self, keys: Sequence[RowKey]) -> None:
        """Stages rows to remove; only for a change."""
        ...

    async def renew(self) -> None:
        """Renews the lease under which the push began. Raises RegisterAgainError when that is over."""
        ...

    async def commit(self, max_rows: int = 0) -> int:
        """Makes the push visible and returns the stored revision.

        Raises RegisterAgainError, LeaseSupersededError, or TableRevisionMismatchError; then nothing became visible. The
        last one also for a change after which the table might have more than max_rows rows, 0 for any number: a whole
        table can be counted.
        """
        ...


class DirectoryWriter(Protocol):
    """What the registry may do. Every method is safe to retry and to run on several replicas at once.

    A lease whose token is not that of the living lease of that peer id counts everywhere as none.
    """

    async def register(self, info: PeerInfo, ttl: timedelta, token: bytes = b"") -> None:
        """Grants the lease. A greater generation takes over, and the table of the smaller one is dropped.

        The same generation again renews and keeps the table. Raises PeerIdTakenError when a lease lives that was
        granted for another token, whatever the generation, LeaseSupersededError with the owner's address when a greater
        generation holds the lease, InvalidArgumentError for one that is more than a day ahead of the store's clock: it
        would own the peer id for good.
        """
        ...

    async def publish(self, lease: Lease, publications: Sequence[Publication]) -> Sequence[int]:
        """The time of each publication, in their order and by the store's clock, in nanoseconds. At most 1,000.

        That of a content that is given a name is later than all times that are known, and than those before it. A
        content that is found has the time that is known of it; where other contents of the name are known, a time
        before the newest of them; else its modification time, or the time of this call if that is earlier. One that may
        only join has the time that is known of it, or REFUSED. Stores nothing: rows carry the times. Raises
        RegisterAgainError, LeaseSupersededError.
        """
        ...

    async def claim_fetch(self, lease: Lease, claim: FetchClaim) -> Fetcher | None:
        """Who fetches a file from its origin after this claim: the caller, for some seconds, if nobody did, or if the
        transfer is the one that the claim names as dead. None after a release.

        Raises RegisterAgainError, LeaseSupersededError.
        """
        ...

    async def renew(
        self, renewals: Sequence[Renewal]
    ) -> Sequence[HeartbeatOutcome | LeaseSupersededError | StoreUnavailableError]:
        """Renews leases and compares revisions; the outcome of each, in their order.

        PUSH_TABLE also when the store has lost index entries of the table. One renewal that fails does not keep the
        others from being renewed. All travel to the store together, which makes the heartbeats of a fleet cheap. At
        most 1,000 at once.
        """
        ...

    def push_table(self, lease: Lease, *, whole: bool, base_revision: int, revision: int) -> TablePush:
        """Begins a push; see TablePush."""
        ...

    async def leave(self, lease: Lease) -> bool:
        """Ends the lease at once; the peer is out of every answer when this returns. False when there was none of that
        generation and token; any other is left alone."""
        ...

    async def reap(self, *, limit: int = 10_000) -> int:
        """Collects the index entries of dead peers and abandoned pushes, at most of `limit` rows, and returns of how
        many; 0 when there is nothing left to do. Idempotent; may run on every replica."""
        ...

    async def lease_counts(self) -> tuple[int, int]:
        """Leases that live, and those that ended but are not collected yet; for metrics."""
        ...

    async def ping(self) -> None:
        """Returns when the store answers, within a short limit."""
        ...


class DirectoryReader(Protocol):
    """What the locator may do. An answer names only peers whose lease lives and whose table has the content.

    A store that lost everything a moment ago does not know the holders. A reader that is made so raises
    StoreUnavailableError where it would otherwise answer that nobody has a content.
    """

    async def find(
        self, name: Name, *, content_id: ContentId | None = None, max_holders: int = 20
    ) -> Sequence[Version]:
        """Versions under a name with living holders; empty when there are none.

        The first is the default: the newest published one with a complete holder, or the newest when none has one.
        """
        ...

    async def find_newest(self, names: Sequence[Name], *, max_holders: int = 20) -> Sequence[Version | None]:
        """For each name, in their order, the first version that `find` would give; None where it would give none.

        Costs the store a few commands in all, not a few for each name.
        """
        ...

    async def find_content(
        self, content_id: ContentId, *, max_holders: int = 20
    ) -> tuple[Version | None, Sequence[Name]]:
        """A content with its living holders, whatever it is called, and up to 100 of its names; None when unheld."""
        ...

    async def list_names(self, *, prefix: str = "", query: str = "", after: str = "", limit: int = 100) -> CatalogPage:
        """Names in byte order after `after`, that begin with `prefix` and match `query`.

        query: a glob when it has `*`, `?` or `[` (the whole name must match, `*` spans `/`), else a substring; case is
        ignored in both. Reads a bounded number of names, so a page may have fewer than `limit` entries, even none, and
        yet a `next_after`.
        """
        ...

    async def list_peers(self, *, after: str = "", limit: int = 100) -> tuple[Sequence[PeerRecord], str]:
        """Living peers in order of their ids after `after`, and the next `after`, empty at the end."""
        ...

    async def get_peer(self, peer_id: PeerId) -> PeerRecord:
        """A living peer. Raises PeerNotFoundError."""
        ...

    async def place(
        self, name: Name, size_bytes: int, replicas: int, *, content_id: ContentId | None = None, margin_bytes: int = 0
    ) -> Sequence[Placement]:
        """Up to `replicas` living peers for an upload, by round robin over those with room (free ≥ size + margin).

        Never one that holds that content (or, without content_id, that name). Moves the shared placement cursor. Empty
        when every peer with room holds it already. Raises NoSpaceError when none has room, PeerUnavailableError when
        none lives. Asks a bounded number of peers, and the next call those after them.
        """
        ...

    async def stats(self) -> DirectoryStats:
        """The directory in figures."""
        ...

    async def ping(self) -> None:
        """Returns when the store answers, within a short limit."""
        ...
