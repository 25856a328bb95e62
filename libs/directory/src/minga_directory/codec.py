"""Packed values and composite fields. All integers are big-endian, so that bytes compare as the numbers do."""

import struct
from dataclasses import dataclass
from typing import NamedTuple

from blake3 import blake3

from minga_core.errors import MingaError
from minga_core.ids import DIGEST_BYTES, ContentId, PeerId
from minga_core.names import Name
from minga_core.records import FileRow, HoldingState, RowKey

_ROW = struct.Struct(">QQQB")
_VERSION = struct.Struct(">QQ")
_RECORD = struct.Struct(">B32s8sQQQBQQ")
_COMPLETE = HoldingState.COMPLETE
_STATE_OF_DIGIT = {b"0": HoldingState.COMPLETE, b"1": HoldingState.PARTIAL}
_EXECUTABLE = 2
"""Bit of a row's last byte; the lowest one is its state."""
_FLAGS = {
    code: (state, executable)
    for code, state, executable in (
        (0, HoldingState.COMPLETE, False),
        (1, HoldingState.PARTIAL, False),
        (_EXECUTABLE, HoldingState.COMPLETE, True),
        (_EXECUTABLE + 1, HoldingState.PARTIAL, True),
    )
}
ROW_BYTES = _ROW.size
"""Bytes of a value of `table` before the name."""
NAME_HASH_BYTES = 8
TAG_BYTES = 8
RECORD_BYTES = _RECORD.size
_BIAS = 1 << 63
"""Added to times, which may lie before 1970, so that their bytes compare as the times do."""


@dataclass(frozen=True, slots=True)
class HolderEntry:
    """One field of a `holders` key."""

    peer_id: PeerId
    name_hash: bytes
    state: HoldingState


@dataclass(frozen=True, slots=True)
class NameEntry:
    """One field of a `name` key."""

    content_id: ContentId
    size_bytes: int
    published_ns: int


def _flags(state: HoldingState, executable: bool) -> int:
    return (0 if state is _COMPLETE else 1) + (_EXECUTABLE if executable else 0)


def name_hash(name: Name) -> bytes:
    """The first bytes of a name's BLAKE3, which stand for it in fields, so that the name is stored once a row."""
    return blake3(name.encode()).digest(NAME_HASH_BYTES)


def row_field(key: RowKey) -> bytes:
    """Field of a row in `table`."""
    return key.content_id.raw + name_hash(key.name)


def row_value(row: FileRow) -> bytes:
    """Value of a row in `table`."""
    key, size_bytes, modified_ns, published_ns, state, executable, _ = row
    flags = _flags(state, executable)
    return _ROW.pack(size_bytes, modified_ns + _BIAS, published_ns + _BIAS, flags) + key.name.encode()


def key_of_row(field: bytes, value: bytes) -> RowKey:
    """The row of a field and a value of `table`."""
    return RowKey(Name(value[ROW_BYTES:].decode()), ContentId(field[:DIGEST_BYTES]))


def index_record(row: FileRow, hashed: bytes, names_at: int) -> bytes:
    """All of a row that has a fixed size, as scripts that write index entries take it: RECORD_BYTES.

    One byte of the caller's (script `put`: which of the `names` keys), field of `table`, value of
    `table` up to the name, value of `name`. hashed: the name's `name_hash`.
    """
    key, size_bytes, modified_ns, published_ns, state, executable, _ = row
    published = published_ns + _BIAS
    return _RECORD.pack(
        names_at, key.content_id.raw, hashed, size_bytes, modified_ns + _BIAS, published, _flags(state, executable),
        size_bytes, published,
    )  # fmt: skip


def holder_prefix(peer_id: PeerId) -> bytes:
    """The beginning of the peer's fields in `holders`; the name's hash follows."""
    return peer_id.encode() + b"\0"


def holder_field(peer_id: PeerId, name: Name) -> bytes:
    """Field of `holders`."""
    return holder_prefix(peer_id) + name_hash(name)


def holder_entry(field: bytes, value: bytes) -> HolderEntry | None:
    """A decoded field of `holders`; None when it is damaged."""
    try:
        # A hash may have NULs, a peer id has none.
        peer_id, _, hashed = field.partition(b"\0")
        if len(hashed) != NAME_HASH_BYTES:
            return None
        return HolderEntry(PeerId(peer_id.decode()), hashed, _STATE_OF_DIGIT[value[-1:]])
    except (UnicodeDecodeError, KeyError):
        return None


def name_entry(field: bytes, value: bytes) -> NameEntry | None:
    """A decoded field of `name`; None when it is damaged."""
    try:
        size_bytes, published_ns = _VERSION.unpack_from(value)
        return NameEntry(ContentId(field), size_bytes, published_ns - _BIAS)
    except (struct.error, MingaError):
        return None


class RowSummary(NamedTuple):
    """A value of `table` without its name."""

    state: HoldingState
    executable: bool
    size_bytes: int
    modified_ns: int
    published_ns: int


def row_summary(packed: bytes) -> RowSummary:
    """The first ROW_BYTES of a value of `table`. Raises ValueError when they are damaged."""
    try:
        size_bytes, modified_ns, published_ns, flags = _ROW.unpack(packed)
        return RowSummary(*_FLAGS[flags], size_bytes, modified_ns - _BIAS, published_ns - _BIAS)
    except (struct.error, KeyError) as error:
        raise ValueError("damaged row") from error


def row_name(value: bytes) -> Name:
    """The rest of a value of `table`. Raises ValueError when it is damaged."""
    return Name(value[ROW_BYTES:].decode())
