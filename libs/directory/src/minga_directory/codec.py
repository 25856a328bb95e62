"""Packed values and composite fields. All integers are big-endian, so that bytes compare as the numbers do."""

import struct
from dataclasses import dataclass

from minga_core.errors import MingaError
from minga_core.ids import DIGEST_BYTES, ContentId, PeerId
from minga_core.names import Name
from minga_core.records import FileRow, HoldingState, RowKey

_ROW = struct.Struct(">QQQB")
_VERSION = struct.Struct(">QQ8s")
_STATES = {HoldingState.COMPLETE: 0, HoldingState.PARTIAL: 1}
_STATE_OF = {code: state for state, code in _STATES.items()}
STAMP_BYTES = 8
_BIAS = 1 << 63
"""Added to instants, which may lie before 1970, so that their bytes compare as the instants do."""


@dataclass(frozen=True, slots=True)
class HolderHint:
    """One field of a `holders` key."""

    peer_id: PeerId
    name: Name
    state: HoldingState


@dataclass(frozen=True, slots=True)
class VersionHint:
    """One field of a `name` key."""

    content_id: ContentId
    size_bytes: int
    published_ns: int


def row_field(key: RowKey) -> bytes:
    """Field of a row in `table`."""
    return key.content_id.raw + key.name.encode()


def key_of_field(field: bytes) -> RowKey:
    """The row that a field of `table` stands for."""
    return RowKey(Name(field[DIGEST_BYTES:].decode()), ContentId(field[:DIGEST_BYTES]))


def row_value(row: FileRow) -> bytes:
    """Value of a row in `table`."""
    return _ROW.pack(row.size_bytes, row.modified_ns + _BIAS, row.published_ns + _BIAS, _STATES[row.state])


def fence(number: int) -> bytes:
    """A push's number in digits. Scripts compare it as a number: texts they would compare by the server's locale."""
    return b"%d" % number


def holder_field(peer_id: PeerId, name: Name) -> bytes:
    """Field of `holders`."""
    return peer_id.encode() + b"\0" + name.encode()


def holder_value(state: HoldingState, of: bytes) -> bytes:
    """Value of `holders`. of: a fence."""
    return bytes([_STATES[state]]) + of


def holder_hint(field: bytes, value: bytes) -> HolderHint | None:
    """What a field of `holders` says; None when it is damaged."""
    try:
        peer_id, _, name = field.partition(b"\0")
        return HolderHint(PeerId(peer_id.decode()), Name(name.decode()), _STATE_OF[value[0]])
    except (UnicodeDecodeError, KeyError, IndexError):
        return None


def version_value(size_bytes: int, published_ns: int, stamp: bytes) -> bytes:
    """Value of `name`. stamp: STAMP_BYTES that no other write has."""
    return _VERSION.pack(size_bytes, published_ns + _BIAS, stamp)


def version_hint(field: bytes, value: bytes) -> VersionHint | None:
    """What a field of `name` says; None when it is damaged."""
    try:
        size_bytes, published_ns, _ = _VERSION.unpack(value)
        return VersionHint(ContentId(field), size_bytes, published_ns - _BIAS)
    except (struct.error, MingaError):
        return None


@dataclass(frozen=True, slots=True)
class RowFacts:
    """What a value of `table` says."""

    size_bytes: int
    modified_ns: int
    published_ns: int
    state: HoldingState


def row_facts(value: bytes) -> RowFacts:
    """What a value of `table` says. Raises ValueError when it is damaged."""
    try:
        size_bytes, modified_ns, published_ns, state = _ROW.unpack(value)
        return RowFacts(size_bytes, modified_ns - _BIAS, published_ns - _BIAS, _STATE_OF[state])
    except (struct.error, KeyError) as error:
        raise ValueError("damaged row") from error
