"""What peers register and announce, as plain values.

Instants are integers: nanoseconds since 1970 for files (as file systems give them), milliseconds for leases.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from minga_core.ids import Address, ContentId, Generation, PeerId
from minga_core.names import Name

MAX_REPLICAS = 20
"""Peers that one placement names at most, and so those that an upload may ask for."""
MAX_INSTANT_NS = (1 << 63) - 1
"""In the year 2262."""
PUBLISH = 0
"""In place of a time of publication: the registry is yet to be asked for one, later than all others of the name."""
FOUND = -1
"""In place of a time of publication: the registry is yet to be asked when this was published, if it knows."""


def publish_as_of(changed_ns: int) -> int:
    """In place of a time of publication, of a file that may have been published before this start of its peer.

    The registry is yet to be asked: a version that is known keeps its time, else it was published when the file was
    changed, which is `changed_ns` by the clock of the peer's file system.
    """
    return min(FOUND - 1, -changed_ns)


def as_of_ns(published_ns: int) -> int | None:
    """When the file was changed; None when `published_ns` was not made by `publish_as_of`."""
    return -published_ns if published_ns < FOUND else None


def clamp_instant_ns(nanos: int) -> int:
    """The nearest instant that is kept: 1970 to 2262. File systems have others, and no file is refused for its time."""
    return max(0, min(nanos, MAX_INSTANT_NS))


LEASE_TOKEN_BYTES = 16
TAG_BYTES = 16
MAX_TICKET_BYTES = 64


class HoldingState(StrEnum):
    """How much of a content a peer has."""

    COMPLETE = "complete"
    PARTIAL = "partial"


# NamedTuples, because rows come by the million and a frozen dataclass takes three times as long to make.


class RowKey(NamedTuple):
    """Identifies a row of one peer's file table. An old content and a part of a new one under the same name are two
    rows."""

    name: Name
    content_id: ContentId


class FileRow(NamedTuple):
    """One content under one name on one peer."""

    key: RowKey
    size_bytes: int
    modified_ns: int
    """Modification time of the file on that peer."""
    published_ns: int
    """When this content was given this name, by the registry's clock; copies keep their source's value. Or PUBLISH,
    FOUND or `publish_as_of`: not known yet, which orders it before all others."""
    state: HoldingState = HoldingState.COMPLETE
    executable: bool = False
    """Whether the file's owner may execute it."""
    tag: bytes = b""
    """The registry's proof of `published_ns`, of TAG_BYTES. While that is not known, the ticket that came with the
    upload, which permits that it is published. Empty when there is none."""


class Lease(NamedTuple):
    """What a peer shows to the registry in every call: who it is, and that it is the one that registered."""

    peer_id: PeerId
    generation: Generation
    token: bytes = b""
    """LEASE_TOKEN_BYTES that only the peer and the registries know; empty for a peer of a version without one."""

    def __repr__(self) -> str:
        """Without the token: it must be in no log."""
        return f"Lease({self.peer_id!r}, {self.generation})"


class Publication(NamedTuple):
    """A content that is to be given a name, or of which the registry is asked when that was done."""

    key: RowKey
    found_modified_ns: int | None = None
    """None: it is given the name now. Else the modification time of a file about which nothing else is known."""
    changed_ago_ns: int | None = None
    """Of a file that was not found: how long it has been as it is; see `publish_as_of`. None: it is published now."""
    join_only: bool = False
    """Whether a version that is known keeps its time, and one that is not is refused: its peer has no right to it."""
    ticket: bytes = b""
    """The permission to publish it that came with an upload; empty when there is none."""
    was_published: bool = False
    """Whether found_modified_ns is a time of publication, that the peer has kept."""


REFUSED = 0
"""In place of the time of a publication that was refused."""


TRANSFER_ID_BYTES = 32


class FetchClaim(NamedTuple):
    """A peer wants to fetch a file from its origin for all."""

    name: Name
    transfer_id: bytes
    """TRANSFER_ID_BYTES, drawn for this transfer."""
    http_port: int
    """Where the peer serves chunks."""
    instead_of: bytes = b""
    """The transfer that it follows and has found dead; empty for none."""
    release: bool = False
    """Whether it gives up its own claim on this transfer instead."""


class Fetcher(NamedTuple):
    """The peer that fetches a file from its origin for all."""

    peer_id: PeerId
    address: Address
    http_port: int
    transfer_id: bytes


class Published(NamedTuple):
    """When a content was given a name."""

    ns: int
    tag: bytes = b""
    """The registry's proof of it; empty in a network without tags."""


@dataclass(frozen=True, slots=True)
class PeerInfo:
    """A peer's own data in its registration."""

    peer_id: PeerId
    generation: Generation
    address: Address
    """Empty while the peer has none, which is never registered."""
    zone: str
    capacity_bytes: int
    free_bytes: int
    software_version: str
    gateway_url: str = ""
    """Of its HTTP gateway; empty when others do not reach it."""


@dataclass(frozen=True, slots=True)
class TableChange:
    """The difference between two revisions of a table. A key is in `put` or in `remove`, not in both."""

    base_revision: int
    revision: int
    put: tuple[FileRow, ...] = ()
    remove: tuple[RowKey, ...] = ()
