"""What peers say of themselves, and what the directory answers, as plain values.

Instants are integers: nanoseconds since 1970 for files (as file systems give them), milliseconds for leases.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from minga_core.ids import Address, ContentId, Generation, PeerId
from minga_core.names import Name


class HoldingState(StrEnum):
    """How much of a content a peer has."""

    COMPLETE = "complete"
    PARTIAL = "partial"


# Rows come by the million: a tuple is made in a third of the time that a frozen dataclass takes.


class RowKey(NamedTuple):
    """What identifies a row of one peer's file table. A peer may hold an old content and a part of a new one under
    the same name; those are two rows."""

    name: Name
    content_id: ContentId


class FileRow(NamedTuple):
    """One content under one name on one peer."""

    key: RowKey
    size_bytes: int
    modified_ns: int
    """Modification time of the file on that peer."""
    published_ns: int
    """When this content was first shared under this name anywhere; copies carry their source's value."""
    state: HoldingState = HoldingState.COMPLETE


@dataclass(frozen=True, slots=True)
class PeerInfo:
    """What a peer says of itself when it registers."""

    peer_id: PeerId
    generation: Generation
    address: Address
    zone: str
    capacity_bytes: int
    free_bytes: int
    software_version: str


@dataclass(frozen=True, slots=True)
class TableChange:
    """What turns a table of one revision into another. A key is in one of the two at most."""

    base_revision: int
    revision: int
    put: tuple[FileRow, ...] = ()
    remove: tuple[RowKey, ...] = ()
