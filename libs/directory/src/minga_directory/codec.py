"""Packed values and composite fields. All integers are big-endian, so that bytes compare as the numbers do."""

import struct
from dataclasses import dataclass

from blake3 import blake3

from minga_core.errors import MingaError
from minga_core.ids import DIGEST_BYTES, ContentId, PeerId
from minga_core.names import Name
from minga_core.records import FileRow, HoldingState, RowKey

_ROW = struct.Struct(">QQQB")
_VERSION = struct.Struct(">QQ")
_RECORD = struct.Struct(">B32s8sQQQBQQ")
_COMPLETE = HoldingState.COMPLETE
_STATE_OF = {0: HoldingState.COMPLETE, 1: HoldingState.PARTIAL}
_STATE_OF_DIGIT = {b"%d" % code: state for code, state in _STATE_OF.items()}
ROW_BYTES = _ROW.size
"""Of a value of `table`, before the name."""
NAME_HASH_BYTES = 8
ROW_FIELD_BYTES = DIGEST_BYTES + NAME_HASH_BYTES
MARK_BYTES = 8
RECORD_BYTES = _RECORD.size
_BIAS = 1 << 63
"""Added to instants, which may lie before 1970, so that their bytes compare as the instants do."""


@dataclass(frozen=True, slots=True)
class HolderHint:
    """One field of a `holders` key."""

    peer_id: PeerId
    name_hash: bytes
    state: HoldingState


@dataclass(frozen=True, slots=True)
class VersionHint:
    """One field of a `name` key."""

    content_id: ContentId
    size_bytes: int
    published_ns: int


def _code(state: HoldingState) -> int:
    return 0 if state is _COMPLETE else 1


def name_hash(name: Name) -> bytes:
    """What stands for a name in fields, so that the name itself is kept once a row: the first bytes of its BLAKE3."""
    return blake3(name.encode()).digest(NAME_HASH_BYTES)


def row_field(key: RowKey) -> bytes:
    """Field of a row in `table`."""
    return key.content_id.raw + name_hash(key.name)


def row_value(row: FileRow) -> bytes:
    """Value of a row in `table`."""
    key, size_bytes, modified_ns, published_ns, state = row
    return _ROW.pack(size_bytes, modified_ns + _BIAS, published_ns + _BIAS, _code(state)) + key.name.encode()


def key_of_row(field: bytes, value: bytes) -> RowKey:
    """The row that a field of `table` and its value stand for."""
    return RowKey(Name(value[ROW_BYTES:].decode()), ContentId(field[:DIGEST_BYTES]))


def put_record(row: FileRow, hashed: bytes, names_at: int) -> bytes:
    """Of a row all that has a fixed size, as scripts that write hints take it: RECORD_BYTES.

    One byte of the caller's (scripts `put` and `list_names`: which of the `names` keys), field of `table`, value of
    `table` up to the name, value of `name`. hashed: the name's `name_hash`.
    """
    key, size_bytes, modified_ns, published_ns, state = row
    published = published_ns + _BIAS
    return _RECORD.pack(
        names_at, key.content_id.raw, hashed, size_bytes, modified_ns + _BIAS, published, _code(state),
        size_bytes, published,
    )  # fmt: skip


def fence(number: int) -> bytes:
    """A push's number in digits. Scripts compare it as a number: texts they would compare by the server's locale."""
    return b"%d" % number


def holder_beginning(peer_id: PeerId) -> bytes:
    """How fields of `holders` begin that are the peer's; the name's hash follows."""
    return peer_id.encode() + b"\0"


def holder_field(peer_id: PeerId, name: Name) -> bytes:
    """Field of `holders`."""
    return holder_beginning(peer_id) + name_hash(name)


def holder_value(state: HoldingState, of: bytes) -> bytes:
    """Value of `holders` as script `put` writes it: digits, which Redis keeps as a number of 8 bytes. of: a fence."""
    return b"%b%d" % (of, _code(state))


def holder_hint(field: bytes, value: bytes) -> HolderHint | None:
    """What a field of `holders` says; None when it is damaged."""
    try:
        # A hash may have NULs, a peer id has none.
        peer_id, _, hashed = field.partition(b"\0")
        if len(hashed) != NAME_HASH_BYTES:
            return None
        return HolderHint(PeerId(peer_id.decode()), hashed, _STATE_OF_DIGIT[value[-1:]])
    except (UnicodeDecodeError, KeyError):
        return None


def version_value(size_bytes: int, published_ns: int) -> bytes:
    """Value of `name`, as scripts cut it out of a record; a mark of MARK_BYTES may follow."""
    return _VERSION.pack(size_bytes, published_ns + _BIAS)


def version_hint(field: bytes, value: bytes) -> VersionHint | None:
    """What a field of `name` says; None when it is damaged."""
    try:
        size_bytes, published_ns = _VERSION.unpack_from(value)
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
    name: Name


def row_facts(value: bytes) -> RowFacts:
    """What a value of `table` says. Raises ValueError when it is damaged."""
    try:
        size_bytes, modified_ns, published_ns, state = _ROW.unpack_from(value)
        name = Name(value[ROW_BYTES:].decode())
        return RowFacts(size_bytes, modified_ns - _BIAS, published_ns - _BIAS, _STATE_OF[state], name)
    except (struct.error, KeyError, UnicodeDecodeError) as error:
        raise ValueError("damaged row") from error


def row_summary(value: bytes) -> tuple[HoldingState, int, int]:
    """Of the first ROW_BYTES of a value of `table`, state, size and instant of publishing.

    Raises ValueError when they are damaged. Without the rest of `row_facts`: look-ups read thousands a second.
    """
    try:
        size_bytes, _, published_ns, state = _ROW.unpack_from(value)
        return _STATE_OF[state], size_bytes, published_ns - _BIAS
    except (struct.error, KeyError) as error:
        raise ValueError("damaged row") from error
