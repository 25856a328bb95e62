"""Between the control contract's messages about small files and our own values."""

from minga_core.errors import InvalidArgumentError
from minga_core.names import Name, parse_name
from minga_engine.progress import SmallDone
from minga_protos.control.v1 import control_pb2 as pb

MAX_NAMES = 1_000
"""Names in a DownloadFilesRequest (contract: control.proto)."""


def small_names_from_pb(request: pb.DownloadFilesRequest) -> list[Name]:
    """The names asked for, each once. Raises InvalidArgumentError, InvalidNameError."""
    if not 0 < len(request.names) <= MAX_NAMES:
        raise InvalidArgumentError(f"names are 1 to {MAX_NAMES:,}, not {len(request.names)}")
    return list(dict.fromkeys(parse_name(name) for name in request.names))


def small_file_to_pb(done: SmallDone) -> pb.DownloadedFile:
    """A file that is there, as the contract tells it."""
    return pb.DownloadedFile(
        name=done.name,
        content_id=done.content_id.raw,
        size_bytes=done.size_bytes,
        path=str(done.path),
        source=done.source or "",
    )
