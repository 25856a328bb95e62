"""Every error that crosses a boundary of Minga, and the one table that maps it to gRPC and HTTP.

::

    MingaError
    ├── InvalidArgumentError          bad input; do not retry
    │   ├── InvalidNameError          a file name breaks the rules of `names`
    │   ├── InvalidManifestError      bytes that are no manifest, or not the one asked for
    │   └── SettingsError             a setting is missing, unknown or out of range
    ├── NotFoundError
    │   ├── FileNotFoundInDirectoryError   nobody alive shares that name or content
    │   ├── PeerNotFoundError         no living peer has that id
    │   └── ContentNotHeldError       this peer does not have that content (any more)
    ├── NameTakenError                another content has that name, and overwrite was not asked
    ├── LeaseSupersededError          a greater generation owns the peer id: stop
    ├── RegisterAgainError            no lease under that peer id and generation: register, then push
    ├── TableRevisionMismatchError    a change was pushed on another revision: push the whole table
    ├── TableIncompleteError          a push ended with other row counts than were sent: push again
    ├── LimitExceededError            more than this service takes (rows, sizes, streams)
    ├── BusyError                     no slot now; retry after `retry_after`
    ├── NoSpaceError                  it does not fit on the disk or under the capacity
    ├── ContentChangedError           the file changed while it was read; what was read is void
    ├── ChunkCorruptError             bytes that fail their chunk's digest
    ├── NoSourcesError                no source was reachable for as long as the caller would wait
    ├── StorageError                  the disk said no (permission, I/O); the operation failed, nothing else did
    ├── AlreadyRunningError           another process uses this shared folder or socket
    ├── UnavailableError              a dependency is away; retry
    │   ├── StoreUnavailableError     Redis
    │   │   └── StoreRefusedError     Redis is there, and refuses this user: nothing changes by waiting
    │   ├── RegistryUnavailableError
    │   ├── LocatorUnavailableError
    │   ├── PeerUnavailableError
    │   └── DaemonUnavailableError    no daemon on this machine
    └── InternalError                 a bug: anything that is none of the above
"""

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import ClassVar


class Code(StrEnum):
    """Stable codes of errors; they never change their meaning."""

    INVALID_ARGUMENT = "invalid_argument"
    INVALID_NAME = "invalid_name"
    INVALID_MANIFEST = "invalid_manifest"
    INVALID_SETTINGS = "invalid_settings"
    FILE_NOT_FOUND = "file_not_found"
    PEER_NOT_FOUND = "peer_not_found"
    CONTENT_NOT_HELD = "content_not_held"
    NAME_TAKEN = "name_taken"
    LEASE_SUPERSEDED = "lease_superseded"
    REGISTER_AGAIN = "register_again"
    TABLE_REVISION_MISMATCH = "table_revision_mismatch"
    TABLE_INCOMPLETE = "table_incomplete"
    LIMIT_EXCEEDED = "limit_exceeded"
    BUSY = "busy"
    NO_SPACE = "no_space"
    CONTENT_CHANGED = "content_changed"
    CHUNK_CORRUPT = "chunk_corrupt"
    NO_SOURCES = "no_sources"
    STORAGE = "storage"
    ALREADY_RUNNING = "already_running"
    STORE_UNAVAILABLE = "store_unavailable"
    REGISTRY_UNAVAILABLE = "registry_unavailable"
    LOCATOR_UNAVAILABLE = "locator_unavailable"
    PEER_UNAVAILABLE = "peer_unavailable"
    DAEMON_UNAVAILABLE = "daemon_unavailable"
    UNAVAILABLE = "unavailable"
    INTERNAL = "internal"


@dataclass(frozen=True, slots=True)
class WireStatus:
    """How a code looks on the wires."""

    grpc: str
    """Name of a `grpc.StatusCode`."""
    http: int
    """HTTP status."""
    retryable: bool
    """Whether the same call may succeed later without anybody changing anything."""


# The one table. gRPC names as in google/rpc/code.proto, HTTP as its comments map them, save where the house's style
# says better (409 for a lost lease, 429 for busy).
WIRE_STATUS: dict[Code, WireStatus] = {
    Code.INVALID_ARGUMENT: WireStatus("INVALID_ARGUMENT", 400, False),
    Code.INVALID_NAME: WireStatus("INVALID_ARGUMENT", 400, False),
    Code.INVALID_MANIFEST: WireStatus("INVALID_ARGUMENT", 400, False),
    Code.INVALID_SETTINGS: WireStatus("INVALID_ARGUMENT", 400, False),
    Code.FILE_NOT_FOUND: WireStatus("NOT_FOUND", 404, False),
    Code.PEER_NOT_FOUND: WireStatus("NOT_FOUND", 404, False),
    Code.CONTENT_NOT_HELD: WireStatus("NOT_FOUND", 404, False),
    Code.NAME_TAKEN: WireStatus("ALREADY_EXISTS", 409, False),
    Code.LEASE_SUPERSEDED: WireStatus("FAILED_PRECONDITION", 409, False),
    Code.REGISTER_AGAIN: WireStatus("FAILED_PRECONDITION", 409, False),
    Code.TABLE_REVISION_MISMATCH: WireStatus("ABORTED", 409, False),
    Code.TABLE_INCOMPLETE: WireStatus("ABORTED", 409, True),
    Code.LIMIT_EXCEEDED: WireStatus("RESOURCE_EXHAUSTED", 429, False),
    Code.BUSY: WireStatus("RESOURCE_EXHAUSTED", 429, True),
    Code.NO_SPACE: WireStatus("RESOURCE_EXHAUSTED", 507, False),
    Code.CONTENT_CHANGED: WireStatus("FAILED_PRECONDITION", 409, True),
    Code.CHUNK_CORRUPT: WireStatus("DATA_LOSS", 422, False),
    Code.NO_SOURCES: WireStatus("DEADLINE_EXCEEDED", 504, True),
    Code.STORAGE: WireStatus("INTERNAL", 500, False),
    Code.ALREADY_RUNNING: WireStatus("FAILED_PRECONDITION", 409, False),
    Code.STORE_UNAVAILABLE: WireStatus("UNAVAILABLE", 503, True),
    Code.REGISTRY_UNAVAILABLE: WireStatus("UNAVAILABLE", 503, True),
    Code.LOCATOR_UNAVAILABLE: WireStatus("UNAVAILABLE", 503, True),
    Code.PEER_UNAVAILABLE: WireStatus("UNAVAILABLE", 503, True),
    Code.DAEMON_UNAVAILABLE: WireStatus("UNAVAILABLE", 503, True),
    Code.UNAVAILABLE: WireStatus("UNAVAILABLE", 503, True),
    Code.INTERNAL: WireStatus("INTERNAL", 500, False),
}


class MingaError(Exception):
    """Base of all. `str(error)` is one sentence for people; `hint` says what to do, or is empty."""

    code: ClassVar[Code] = Code.INTERNAL

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    @property
    def retryable(self) -> bool:
        """Whether the same call may succeed later by itself."""
        return WIRE_STATUS[self.code].retryable


class InvalidArgumentError(MingaError):
    """Bad input. Do not retry."""

    code = Code.INVALID_ARGUMENT


class InvalidNameError(InvalidArgumentError):
    """A file name breaks the rules of `minga_core.names`."""

    code = Code.INVALID_NAME


class InvalidManifestError(InvalidArgumentError):
    """Bytes that are no manifest, or whose digest is not the content id asked for."""

    code = Code.INVALID_MANIFEST


class SettingsError(InvalidArgumentError):
    """A setting is missing, unknown or out of range; the message names it."""

    code = Code.INVALID_SETTINGS


class NotFoundError(MingaError):
    """Base of what is not there."""

    code = Code.FILE_NOT_FOUND


class FileNotFoundInDirectoryError(NotFoundError):
    """Nobody alive shares that name or content."""


class PeerNotFoundError(NotFoundError):
    """No living peer has that id."""

    code = Code.PEER_NOT_FOUND


class ContentNotHeldError(NotFoundError):
    """This peer does not have that content, or no longer. Ask another."""

    code = Code.CONTENT_NOT_HELD


class NameTakenError(MingaError):
    """Another content has that name, and overwriting was not asked for."""

    code = Code.NAME_TAKEN


class LeaseSupersededError(MingaError):
    """A greater generation owns the peer id. The process that gets this stops."""

    code = Code.LEASE_SUPERSEDED

    def __init__(self, message: str, *, owner_address: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.owner_address = owner_address


class RegisterAgainError(MingaError):
    """No lease is known under that peer id and generation. Register, then push the whole table."""

    code = Code.REGISTER_AGAIN


class TableRevisionMismatchError(MingaError):
    """A change was pushed on a revision that is not the stored one. Push the whole table."""

    code = Code.TABLE_REVISION_MISMATCH


class TableIncompleteError(MingaError):
    """A push ended with other row counts than had come. Nothing became visible; push again."""

    code = Code.TABLE_INCOMPLETE


class LimitExceededError(MingaError):
    """More than this service takes."""

    code = Code.LIMIT_EXCEEDED


class BusyError(MingaError):
    """No slot now. Retry after `retry_after`."""

    code = Code.BUSY

    def __init__(self, message: str, *, retry_after: timedelta, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after


class NoSpaceError(MingaError):
    """It does not fit on the disk or under the capacity. What was there is untouched."""

    code = Code.NO_SPACE


class ContentChangedError(MingaError):
    """The file changed while it was read. What was read of the unfinished chunk is void."""

    code = Code.CONTENT_CHANGED


class ChunkCorruptError(MingaError):
    """Bytes that fail their chunk's digest. Nothing of them was stored."""

    code = Code.CHUNK_CORRUPT


class NoSourcesError(MingaError):
    """No source was reachable for as long as the caller would wait. What was fetched is kept."""

    code = Code.NO_SOURCES


class StorageError(MingaError):
    """The disk said no. That operation failed, nothing else did."""

    code = Code.STORAGE


class AlreadyRunningError(MingaError):
    """Another process uses this shared folder or socket."""

    code = Code.ALREADY_RUNNING


class UnavailableError(MingaError):
    """A dependency is away. Retry with backoff."""

    code = Code.UNAVAILABLE


class StoreUnavailableError(UnavailableError):
    """Redis is away or too slow."""

    code = Code.STORE_UNAVAILABLE


class StoreRefusedError(StoreUnavailableError):
    """Redis is there and refuses (password, permission), or is of another kind: somebody has to change something.

    At start it stops the process. Later its code is that of an outage, since callers can do no more than for one.
    """


class RegistryUnavailableError(UnavailableError):
    """The registry is away or too slow."""

    code = Code.REGISTRY_UNAVAILABLE


class LocatorUnavailableError(UnavailableError):
    """The locator is away or too slow."""

    code = Code.LOCATOR_UNAVAILABLE


class PeerUnavailableError(UnavailableError):
    """A peer is away or too slow."""

    code = Code.PEER_UNAVAILABLE


class DaemonUnavailableError(UnavailableError):
    """No daemon answers on this machine."""

    code = Code.DAEMON_UNAVAILABLE


class InternalError(MingaError):
    """A bug."""


def _error_classes() -> dict[Code, type[MingaError]]:
    """Each code's class; the first class in tree order that has the code wins."""
    found: dict[Code, type[MingaError]] = {}
    pending: list[type[MingaError]] = [FileNotFoundInDirectoryError, InternalError, *MingaError.__subclasses__()]
    while pending:
        cls = pending.pop(0)
        found.setdefault(cls.code, cls)
        pending.extend(cls.__subclasses__())
    return found


ERROR_CLASSES: dict[Code, type[MingaError]] = _error_classes()


def error_from_code(
    code: str, message: str, *, retry_after: timedelta | None = None, owner_address: str = ""
) -> MingaError:
    """The error that a code and a message from the wire stand for; `InternalError` for an unknown code."""
    try:
        cls = ERROR_CLASSES[Code(code)]
    except ValueError:
        return InternalError(message)
    if cls is BusyError:
        return BusyError(message, retry_after=retry_after or timedelta(seconds=1))
    if cls is LeaseSupersededError:
        return LeaseSupersededError(message, owner_address=owner_address)
    return cls(message)
