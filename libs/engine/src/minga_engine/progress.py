"""How far a transfer is, as plain values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from minga_core.ids import ContentId, PeerId
from minga_core.names import Name
from minga_engine.explanation import Explanation


class DownloadPhase(StrEnum):
    """Phases of a download, in order; `WAITING` may come at any time before the last two.

    >>> client.get("models/model.bin", "phase.bin").phase
    <DownloadPhase.DONE: 'done'>
    """

    LOCATING = "locating"
    FETCHING = "fetching"
    WAITING = "waiting"
    FINISHING = "finishing"
    DONE = "done"
    ALREADY_PRESENT = "already_present"


@dataclass(frozen=True, slots=True)
class Progress:
    """A download at one instant.

    >>> client.get("models/model.bin", "progress.bin").held_bytes
    14
    """

    phase: DownloadPhase
    size_bytes: int = 0
    """0 until it is known."""
    held_bytes: int = 0
    """Verified bytes held, those of earlier attempts too."""
    resumed_bytes: int = 0
    """Of those, held before this attempt."""
    received_by_source: Mapping[PeerId, int] = field(default_factory=dict)
    """Payload bytes of verified chunks, by source."""
    message: str = ""
    """A sentence for people when waiting, else empty."""
    content_id: ContentId | None = None
    path: Path | None = None
    """Where the file is, once it is done."""
    explanation: Explanation | None = None
    """Where bytes and time went; with the last progress of a download that had to fetch anything."""


class SmallDone(NamedTuple):
    """A small file that is whole and in its place."""

    name: Name
    content_id: ContentId
    size_bytes: int
    path: str
    """A text: making a Path takes as long as making the file's row."""
    source: PeerId | None
    """The peer that sent it; None when it was there already."""


@dataclass(frozen=True, slots=True)
class BadFile:
    """A file of the shared folder that is not what it should be.

    >>> minga.BadFile(minga.parse_name("a.bin"), "it cannot be read", unreadable=True).why
    'it cannot be read'
    """

    name: Name
    why: str
    """In one line."""
    unreadable: bool = False
    """It cannot be read; otherwise its bytes are not what was hashed."""


@dataclass(frozen=True, slots=True)
class VerifyProgress:
    """How far the verification of a shared folder is.

    >>> list(client.verify("models/"))[-1].bad_files
    ()
    """

    file_count: int
    checked_count: int
    total_bytes: int
    checked_bytes: int
    bad_files: tuple[BadFile, ...] = ()
    """Those found since the last progress."""


class PutPhase(StrEnum):
    """Phases of an upload, in order.

    >>> phases = []
    >>> result = client.put("model.bin", "copies/2", on_progress=lambda progress: phases.append(progress.phase))
    >>> phases[-1]
    <PutPhase.DONE: 'done'>
    """

    HASHING = "hashing"
    PLACING = "placing"
    UPLOADING = "uploading"
    REPLICATING = "replicating"
    ANNOUNCING = "announcing"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class PutProgress:
    """An upload at one instant.

    >>> seen = []
    >>> result = client.put("model.bin", "copies/3", on_progress=seen.append)
    >>> seen[-1].done_bytes
    14
    """

    phase: PutPhase
    size_bytes: int = 0
    done_bytes: int = 0
    """Bytes done of the present phase."""
    replicas_done: int = 0
    replicas_wanted: int = 1
    message: str = ""


@dataclass(frozen=True, slots=True)
class PutResult:
    """A finished upload.

    >>> client.put("model.bin", "copies/4").missing_replicas
    0
    """

    name: Name
    content_id: ContentId
    size_bytes: int
    peers: tuple[PeerId, ...]
    """Peers that hold the file now, as far as this upload knows."""
    already_there: bool
    """Nothing had to be uploaded."""
    missing_replicas: int = 0
    """How many more were asked for, and found no peer with room."""
    failed_peers: Mapping[PeerId, str] = field(default_factory=dict)
    """Peers that did not store it, each with the reason; they may hold another content of the name still."""
