"""The control contract's messages about downloads, both ways: what a daemon reports to a client on its machine."""

from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeVar

from minga_core.errors import InvalidArgumentError
from minga_core.ids import ContentId, parse_peer_id
from minga_core.names import Name, parse_name
from minga_engine.explanation import Explanation, Phase, SourceShare, WaitCause
from minga_engine.progress import BadFile, DownloadPhase, Progress, SmallDone, VerifyProgress
from minga_protos.control.v1 import control_pb2 as pb

MAX_NAMES = 2_000
"""Names in a DownloadFilesRequest (contract: control.proto)."""
SMALL_FILE_BYTES = 256
"""Of a DownloadedFile, at most, but for its name and path."""
MAX_SOURCES = 50
"""Sources in an Explanation (contract: control.proto)."""

K = TypeVar("K", Phase, WaitCause)


def small_names_from_pb(request: pb.DownloadFilesRequest) -> list[Name]:
    """The names asked for, each once. Raises InvalidArgumentError, InvalidNameError."""
    if not 0 < len(request.names) <= MAX_NAMES:
        raise InvalidArgumentError(f"names are 1 to {MAX_NAMES:,}, not {len(request.names)}")
    return list(dict.fromkeys(parse_name(name) for name in request.names))


def small_file_to_pb(done: SmallDone) -> pb.DownloadedFile:
    """A small file that is in place, as a message."""
    return pb.DownloadedFile(
        name=done.name,
        content_id=done.content_id.raw,
        size_bytes=done.size_bytes,
        path=done.path,
        source=done.source or "",
    )


def small_file_bytes(done: SmallDone) -> int:
    """What a small file takes of a message at most."""
    return 4 * (len(done.name) + len(done.path)) + SMALL_FILE_BYTES


def small_file_from_pb(item: pb.DownloadedFile) -> SmallDone:
    """The message of a small file that is in place, checked."""
    source = parse_peer_id(item.source) if item.source else None
    return SmallDone(parse_name(item.name), ContentId(item.content_id), item.size_bytes, item.path, source)


def progress_to_pb(progress: Progress) -> pb.DownloadResponse:
    """A download's progress as a message."""
    by_amount = sorted(progress.received_by_source.items(), key=lambda item: -item[1])
    return pb.DownloadResponse(
        phase=pb.DownloadPhase.Value(f"DOWNLOAD_PHASE_{progress.phase.name}"),
        size_bytes=progress.size_bytes,
        held_bytes=progress.held_bytes,
        resumed_bytes=progress.resumed_bytes,
        sources=[pb.SourceProgress(peer_id=peer_id, received_bytes=count) for peer_id, count in by_amount],
        message=progress.message,
        content_id=progress.content_id.raw if progress.content_id else b"",
        path=str(progress.path) if progress.path else "",
        explanation=explanation_to_pb(progress.explanation) if progress.explanation else None,
    )


def progress_from_pb(response: pb.DownloadResponse) -> Progress:
    """A download's progress. Raises InvalidArgumentError."""
    phase = response.phase or pb.DOWNLOAD_PHASE_LOCATING
    return Progress(
        DownloadPhase[pb.DownloadPhase.Name(phase).removeprefix("DOWNLOAD_PHASE_")],
        response.size_bytes,
        response.held_bytes,
        response.resumed_bytes,
        {parse_peer_id(source.peer_id): source.received_bytes for source in response.sources},
        response.message,
        ContentId(response.content_id) if response.content_id else None,
        Path(response.path) if response.path else None,
        explanation_from_pb(response.explanation) if response.HasField("explanation") else None,
    )


def verify_progress_to_pb(progress: VerifyProgress) -> pb.VerifyFilesResponse:
    """How far a verification is, as a message."""
    return pb.VerifyFilesResponse(
        file_count=progress.file_count,
        checked_count=progress.checked_count,
        total_bytes=progress.total_bytes,
        checked_bytes=progress.checked_bytes,
        bad_files=[pb.BadFile(name=bad.name, why=bad.why, unreadable=bad.unreadable) for bad in progress.bad_files],
    )


def verify_progress_from_pb(response: pb.VerifyFilesResponse) -> VerifyProgress:
    """How far a verification is. Raises InvalidNameError."""
    return VerifyProgress(
        response.file_count,
        response.checked_count,
        response.total_bytes,
        response.checked_bytes,
        tuple(BadFile(parse_name(bad.name), bad.why, bad.unreadable) for bad in response.bad_files),
    )


def explanation_to_pb(found: Explanation) -> pb.Explanation:
    """An explanation as a message, whose fields have the names of ours."""
    values = asdict(found)
    values["sources"] = values["sources"][:MAX_SOURCES]
    return pb.Explanation(**values)


def explanation_from_pb(message: pb.Explanation) -> Explanation:
    """An explanation; what a newer daemon may add is left out. Raises InvalidArgumentError."""
    values = _values(message, Explanation) | {
        "sources": tuple(_source_from_pb(source) for source in message.sources),
        "phase_seconds": _known(Phase, message.phase_seconds),
        "waited_seconds": _known(WaitCause, message.waited_seconds),
    }
    return Explanation(**values)


def _source_from_pb(message: pb.ExplainedSource) -> SourceShare:
    values = _values(message, SourceShare) | {
        "peer_id": parse_peer_id(message.peer_id),
        "drops": dict(message.drops),
    }
    return SourceShare(**values)


def _values(message: Any, kind: type[Any]) -> dict[str, Any]:
    return {field.name: getattr(message, field.name) for field in fields(kind)}


def _known(kind: type[K], found: Any) -> "dict[K, Any]":
    """The entries of a map whose keys are known here, in the order of the enum."""
    return {key: found[key] for key in kind if key in found}
