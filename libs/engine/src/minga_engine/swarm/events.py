"""The scheduler's events and actions: plain values, no sockets, clocks or disks.

A *request* is one FetchChunks call for one chunk: the scheduler names the source and the candidates, the source picks
one of them (`ChunkChosen`), and the request ends with exactly one of `ChunkArrived`, `ChunkCorrupt`, `RequestFailed`,
or by the scheduler's own `CancelRequest`, after which events about it are ignored.
"""

from dataclasses import dataclass
from enum import StrEnum

from minga_core.chunks import ChunkSet
from minga_core.ids import PeerId


class DropReason(StrEnum):
    """Why a source was dropped, in words for people; the names are for machines."""

    CONNECTION_LOST = "connection lost"
    REQUEST_LOST = "request lost"
    NOT_HELD = "it does not have the content"
    NOTHING_WANTED = "it has nothing that is wanted"
    CONTENT_CHANGED = "its file has changed"
    WRONG_CHUNK = "sent a wrong chunk"
    NO_PROGRESS = "no progress"
    SLOW = "much slower than others"


class FailureReason(StrEnum):
    """Why a request failed."""

    LOST = "lost"
    """The connection broke or never stood."""
    BUSY = "busy"
    """The source has no slot; see retry_after_seconds."""
    NOT_HELD = "not_held"
    """The source does not have the content (any more)."""
    NOTHING_WANTED = "nothing_wanted"
    """The source has none of the candidates now."""
    CONTENT_CHANGED = "content_changed"
    """The source's file changed under it."""


@dataclass(frozen=True, slots=True)
class SourceFound:
    """A peer has the content, according to the directory or another source. May come again for a known source."""

    source: PeerId
    complete: bool
    same_zone: bool = False
    listed: bool = True
    """The directory names it."""


@dataclass(frozen=True, slots=True)
class SourceMoved:
    """A source is somewhere else than was said before; what was seen of it there was perhaps another's doing."""

    source: PeerId


@dataclass(frozen=True, slots=True)
class SourceHolds:
    """An availability update of a source: all chunks that it has when `snapshot`, else new ones."""

    source: PeerId
    chunks: ChunkSet
    snapshot: bool


@dataclass(frozen=True, slots=True)
class SourceLost:
    """The watch on a source broke or the source cannot be reached."""

    source: PeerId


@dataclass(frozen=True, slots=True)
class ChunkChosen:
    """The source says which of the candidates it is sending."""

    request_id: int
    index: int


@dataclass(frozen=True, slots=True)
class BytesReceived:
    """Part of a chunk came: progress and a rate."""

    request_id: int
    count: int


@dataclass(frozen=True, slots=True)
class ChunkArrived:
    """A chunk came, passed its digest, and is on its way to the disk."""

    request_id: int
    index: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class ChunkCorrupt:
    """A chunk failed its digest, or the source sent what was not asked for."""

    request_id: int


@dataclass(frozen=True, slots=True)
class RequestFailed:
    """A request ended without a chunk."""

    request_id: int
    reason: FailureReason
    retry_after_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class ReaderMoved:
    """The chunks from `start` until before `stop` are about to be read, and come before all others, the lower the
    earlier. For one that is known: from now on these instead."""

    reader: int
    start: int
    stop: int
    rest: bool
    """It wants all other chunks as well."""


@dataclass(frozen=True, slots=True)
class ReaderLeft:
    """Nobody wants any more what this one wanted."""

    reader: int


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed; sent at the latest at the `wakeup_at` last returned."""


Event = (
    SourceFound
    | SourceMoved
    | SourceHolds
    | SourceLost
    | ChunkChosen
    | BytesReceived
    | ChunkArrived
    | ChunkCorrupt
    | RequestFailed
    | ReaderMoved
    | ReaderLeft
    | Tick
)


@dataclass(frozen=True, slots=True)
class ConnectSource:
    """Open a channel to the source and watch its chunks."""

    source: PeerId


@dataclass(frozen=True, slots=True)
class DropSource:
    """Close channel and watch; requests to it are void. `why` is for the log."""

    source: PeerId
    why: DropReason


@dataclass(frozen=True, slots=True)
class RequestChunk:
    """Ask the source for one of the candidates, of which there is at least one."""

    request_id: int
    source: PeerId
    candidates: ChunkSet
    hedge: bool = False
    """Another source was asked for it before, and is late."""


@dataclass(frozen=True, slots=True)
class CancelRequest:
    """Cancel the call."""

    request_id: int


@dataclass(frozen=True, slots=True)
class FindSources:
    """Too few sources: ask the directory again. Not repeated more often than the config says."""


@dataclass(frozen=True, slots=True)
class Finished:
    """Every chunk is held."""


Action = ConnectSource | DropSource | RequestChunk | CancelRequest | FindSources | Finished
