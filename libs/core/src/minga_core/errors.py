"""Every error that crosses a boundary of Minga, and the table that maps it to gRPC and HTTP.

::

    MingaError
    ├── InvalidArgumentError          bad input; do not retry
    │   ├── InvalidNameError          a file name breaks the rules of `names`
    │   ├── RowRefusedError           one row of a table is not taken, and no retry changes that: push the others
    │   ├── InvalidManifestError      bytes that are not a manifest, or not the requested one
    │   └── SettingsError             a setting is missing, unknown or out of range
    ├── NotFoundError
    │   ├── FileNotFoundInDirectoryError   no living peer shares that name or content
    │   ├── PeerNotFoundError         no living peer has that id
    │   └── ContentNotHeldError       this peer does not have that content, or no longer
    ├── NameTakenError                another content has that name, and overwriting was not requested
    ├── LeaseSupersededError          a later start of this peer has its lease: stop
    ├── PeerIdTakenError              another peer has that peer id, as long as it lives
    ├── RegisterAgainError            no lease under that peer id and generation: register, then push
    ├── TableRevisionMismatchError    a change was based on another revision: push the whole table
    ├── TableIncompleteError          a push ended with row counts that do not match: push again
    ├── UnauthenticatedError          who is at the other end is not shown, or not who was wanted
    ├── PermissionDeniedError         the caller may not do that
    ├── LimitExceededError            more than this service accepts (rows, sizes, streams)
    ├── BusyError                     no slot now; retry after `retry_after`
    ├── NoSpaceError                  the file does not fit on the disk or in the peer's capacity
    ├── ContentChangedError           the file changed while it was read
    ├── ChunkCorruptError             bytes that fail their chunk's digest
    ├── NoSourcesError                no source was reachable within the caller's limit
    ├── StorageError                  the disk failed or refused (permission, I/O)
    ├── AlreadyRunningError           another process uses this shared folder, socket or port
    ├── UnavailableError              a dependency does not answer; retry
    │   ├── StoreUnavailableError     Redis
    │   │   └── StoreRefusedError     Redis answers, and refuses this user: retrying does not help
    │   ├── RegistryUnavailableError
    │   ├── LocatorUnavailableError
    │   ├── PeerUnavailableError
    │   └── DaemonUnavailableError    no daemon on this machine
    └── InternalError                 a bug: anything else
"""

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import ClassVar


class Code(StrEnum):
    """Stable codes of errors. A code never changes its meaning."""

    INVALID_ARGUMENT = "invalid_argument"
    INVALID_NAME = "invalid_name"
    ROW_REFUSED = "row_refused"
    INVALID_MANIFEST = "invalid_manifest"
    INVALID_SETTINGS = "invalid_settings"
    FILE_NOT_FOUND = "file_not_found"
    PEER_NOT_FOUND = "peer_not_found"
    CONTENT_NOT_HELD = "content_not_held"
    NAME_TAKEN = "name_taken"
    LEASE_SUPERSEDED = "lease_superseded"
    PEER_ID_TAKEN = "peer_id_taken"
    REGISTER_AGAIN = "register_again"
    TABLE_REVISION_MISMATCH = "table_revision_mismatch"
    TABLE_INCOMPLETE = "table_incomplete"
    UNAUTHENTICATED = "unauthenticated"
    PERMISSION_DENIED = "permission_denied"
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
    """The gRPC and HTTP statuses of a code."""

    grpc: str
    """Name of a `grpc.StatusCode`."""
    http: int
    """HTTP status."""
    retryable: bool
    """Whether the same call may succeed later without any intervention."""


# gRPC names as in google/rpc/code.proto, HTTP as its comments map them, except 409 for a lost lease and 429 for busy.
WIRE_STATUS: dict[Code, WireStatus] = {
    Code.INVALID_ARGUMENT: WireStatus("INVALID_ARGUMENT", 400, False),
    Code.INVALID_NAME: WireStatus("INVALID_ARGUMENT", 400, False),
    Code.ROW_REFUSED: WireStatus("INVALID_ARGUMENT", 400, False),
    Code.INVALID_MANIFEST: WireStatus("INVALID_ARGUMENT", 400, False),
    Code.INVALID_SETTINGS: WireStatus("INVALID_ARGUMENT", 400, False),
    Code.FILE_NOT_FOUND: WireStatus("NOT_FOUND", 404, False),
    Code.PEER_NOT_FOUND: WireStatus("NOT_FOUND", 404, False),
    Code.CONTENT_NOT_HELD: WireStatus("NOT_FOUND", 404, False),
    Code.NAME_TAKEN: WireStatus("ALREADY_EXISTS", 409, False),
    Code.LEASE_SUPERSEDED: WireStatus("FAILED_PRECONDITION", 409, False),
    Code.PEER_ID_TAKEN: WireStatus("FAILED_PRECONDITION", 409, True),
    Code.REGISTER_AGAIN: WireStatus("FAILED_PRECONDITION", 409, False),
    Code.TABLE_REVISION_MISMATCH: WireStatus("ABORTED", 409, False),
    Code.TABLE_INCOMPLETE: WireStatus("ABORTED", 409, True),
    Code.UNAUTHENTICATED: WireStatus("UNAUTHENTICATED", 401, False),
    Code.PERMISSION_DENIED: WireStatus("PERMISSION_DENIED", 403, False),
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


class Refusal(StrEnum):
    """Why a server refuses a caller: what its metrics and its audit log call it."""

    NO_CERTIFICATE = "no_certificate"
    """None, or one that names no member."""
    CERTIFICATE_EXPIRED = "certificate_expired"
    REVOKED = "revoked"
    FOREIGN_NETWORK = "foreign_network"
    WRONG_ROLE = "wrong_role"
    OTHER_PEER = "other_peer"
    """A request for a peer that is not the caller."""
    GRANT_INVALID = "grant_invalid"
    GRANT_EXPIRED = "grant_expired"
    GRANT_OF_OTHER = "grant_of_other"
    """A grant of a member that is not the caller."""
    TOKEN_INVALID = "token_invalid"  # noqa: S105 - a reason
    """A token for joining that is none, has ended, or is used up."""
    RIGHT_MISSING = "right_missing"
    QUOTA = "quota"
    """The caller has all that one may have."""
    HANDSHAKE_FAILED = "handshake_failed"


class MingaError(Exception):
    """Base of all. `str(error)` is one sentence to display; `hint` says what to do, or is empty."""

    code: ClassVar[Code] = Code.INTERNAL
    refusal: Refusal | None = None
    """Set where it refuses a caller for what that caller is, may do, or has already."""

    def __init__(self, message: str, *, hint: str = "", refusal: Refusal | None = None) -> None:
        super().__init__(message)
        self.hint = hint
        if refusal is not None:
            self.refusal = refusal

    @property
    def retryable(self) -> bool:
        """Whether the same call may succeed later without any intervention."""
        return WIRE_STATUS[self.code].retryable


class InvalidArgumentError(MingaError):
    """Bad input. Do not retry."""

    code = Code.INVALID_ARGUMENT


class InvalidNameError(InvalidArgumentError):
    """A file name breaks the rules of `minga_core.names`."""

    code = Code.INVALID_NAME


class RowRefusedError(InvalidArgumentError):
    """One row of a table is not taken, and no retry changes that. Nothing became visible; push the others."""

    code = Code.ROW_REFUSED

    def __init__(self, message: str, *, row_name: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.row_name = row_name
        """The name of the row as it was sent, cut at 1,024 bytes."""


class InvalidManifestError(InvalidArgumentError):
    """Bytes that are no manifest, or whose digest is not the content id asked for."""

    code = Code.INVALID_MANIFEST


class SettingsError(InvalidArgumentError):
    """A setting is missing, unknown or out of range; the message names it."""

    code = Code.INVALID_SETTINGS


class NotFoundError(MingaError):
    """Base of errors about something that does not exist."""

    code = Code.FILE_NOT_FOUND


class FileNotFoundInDirectoryError(NotFoundError):
    """No living peer shares that name or content."""


class PeerNotFoundError(NotFoundError):
    """No living peer has that id."""

    code = Code.PEER_NOT_FOUND


class ContentNotHeldError(NotFoundError):
    """This peer does not have that content, or no longer. Ask another peer."""

    code = Code.CONTENT_NOT_HELD


class NameTakenError(MingaError):
    """Another content has that name, and overwriting was not requested."""

    code = Code.NAME_TAKEN


class LeaseSupersededError(MingaError):
    """A later start of this peer has its lease. The process that gets this error must stop."""

    code = Code.LEASE_SUPERSEDED

    def __init__(self, message: str, *, owner_address: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.owner_address = owner_address


class PeerIdTakenError(MingaError):
    """Another peer, with another lease token, has that peer id. Its lease may end: try again, and tell the user."""

    code = Code.PEER_ID_TAKEN


class RegisterAgainError(MingaError):
    """No lease is known under that peer id and generation. Register, then push the whole table."""

    code = Code.REGISTER_AGAIN


class TableRevisionMismatchError(MingaError):
    """A change was based on a revision that is not the stored one. Push the whole table."""

    code = Code.TABLE_REVISION_MISMATCH


class TableIncompleteError(MingaError):
    """A push ended with counts that do not match the rows received. Nothing became visible; push again."""

    code = Code.TABLE_INCOMPLETE


class UnauthenticatedError(MingaError):
    """Who is at the other end of a connection is not shown by a certificate, or is not who was wanted."""

    code = Code.UNAUTHENTICATED
    refusal = Refusal.GRANT_INVALID


class PermissionDeniedError(MingaError):
    """The caller is known, and may not do that."""

    code = Code.PERMISSION_DENIED
    refusal: Refusal | None = Refusal.RIGHT_MISSING


class LimitExceededError(MingaError):
    """More than this service accepts. limit: how much that is, where it was said."""

    code = Code.LIMIT_EXCEEDED
    refusal = Refusal.QUOTA

    def __init__(self, message: str, *, limit: int | None = None, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.limit = limit


class BusyError(MingaError):
    """No slot is free. Retry after `retry_after`."""

    code = Code.BUSY

    def __init__(self, message: str, *, retry_after: timedelta, hint: str = "", refusal: Refusal | None = None) -> None:
        super().__init__(message, hint=hint, refusal=refusal)
        self.retry_after = retry_after


class NoSpaceError(MingaError):
    """The file does not fit on the disk or in the peer's capacity. Existing files are untouched."""

    code = Code.NO_SPACE


class ContentChangedError(MingaError):
    """The file changed while it was read. Bytes read of the unfinished chunk are discarded."""

    code = Code.CONTENT_CHANGED


class ChunkCorruptError(MingaError):
    """Bytes that fail their chunk's digest. None of them was stored."""

    code = Code.CHUNK_CORRUPT


class NoSourcesError(MingaError):
    """No source was reachable within the caller's limit. Chunks that were fetched are kept."""

    code = Code.NO_SOURCES


class StorageError(MingaError):
    """The disk failed or refused. Only that operation failed."""

    code = Code.STORAGE


class AlreadyRunningError(MingaError):
    """Another process uses this shared folder, socket or port."""

    code = Code.ALREADY_RUNNING


class UnavailableError(MingaError):
    """A dependency does not answer. Retry with backoff."""

    code = Code.UNAVAILABLE


class StoreUnavailableError(UnavailableError):
    """Redis does not answer in time."""

    code = Code.STORE_UNAVAILABLE


class StoreRefusedError(StoreUnavailableError):
    """Redis answers and refuses (password, permission), or is of an unsupported kind: retrying does not help.

    At start it stops the process. Later it has the code of an outage, since callers can only treat it as one.
    """


class RegistryUnavailableError(UnavailableError):
    """The registry does not answer in time."""

    code = Code.REGISTRY_UNAVAILABLE


class LocatorUnavailableError(UnavailableError):
    """The locator does not answer in time."""

    code = Code.LOCATOR_UNAVAILABLE


class PeerUnavailableError(UnavailableError):
    """A peer does not answer in time."""

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
    code: str,
    message: str,
    *,
    retry_after: timedelta | None = None,
    owner_address: str = "",
    row_name: str = "",
    limit: int | None = None,
) -> MingaError:
    """The error for a code and a message from the wire; InternalError for an unknown code."""
    try:
        cls = ERROR_CLASSES[Code(code)]
    except ValueError:
        return InternalError(message)
    if cls is BusyError:
        return BusyError(message, retry_after=retry_after or timedelta(seconds=1))
    if cls is LeaseSupersededError:
        return LeaseSupersededError(message, owner_address=owner_address)
    if cls is RowRefusedError:
        return RowRefusedError(message, row_name=row_name)
    if cls is LimitExceededError:
        return LimitExceededError(message, limit=limit)
    return cls(message)
