"""Packed values and composite fields. All integers are big-endian, so that bytes compare as the numbers do."""

import struct
from dataclasses import dataclass
from typing import NamedTuple

from minga_core.errors import MingaError
from minga_core.ids import DIGEST_BYTES, ContentId
from minga_core.names import Name
from minga_core.records import FileRow, HoldingState, RowKey

_ROW = struct.Struct(">QQQB")
"""A value of `table`."""
_VERSION = struct.Struct(">QQ")
"""A value of `name`, which scripts cut from the beginning of a value of `table`."""
_COMPLETE = HoldingState.COMPLETE
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
TAG_BYTES = 8
_BIAS = 1 << 63
"""Added to times, which may lie before 1970, so that their bytes compare as the times do."""


@dataclass(frozen=True, slots=True)
class NameEntry:
    """One field of a `name` key."""

    content_id: ContentId
    size_bytes: int
    published_ns: int


def row_field(key: RowKey) -> bytes:
    """Field of a row in `table`."""
    return key.content_id + key.name.encode()


def row_value(row: FileRow) -> bytes:
    """Value of a row in `table`."""
    _, size_bytes, modified_ns, published_ns, state, executable, _ = row
    flags = (0 if state is _COMPLETE else 1) + (_EXECUTABLE if executable else 0)
    return _ROW.pack(size_bytes, published_ns + _BIAS, modified_ns + _BIAS, flags)


def key_of_row(field: bytes) -> RowKey:
    """The row of a field of `table`."""
    return RowKey(Name(field[DIGEST_BYTES:].decode()), ContentId(field[:DIGEST_BYTES]))


def name_entry(field: bytes, value: bytes) -> NameEntry | None:
    """A decoded field of `name`; None when it is damaged."""
    try:
        size_bytes, published_ns = _VERSION.unpack(value)
        return NameEntry(ContentId(field), size_bytes, published_ns - _BIAS)
    except (struct.error, MingaError):
        return None


class RowSummary(NamedTuple):
    """A decoded value of `table`."""

    state: HoldingState
    executable: bool
    size_bytes: int
    modified_ns: int
    published_ns: int


def row_summary(value: bytes) -> RowSummary:
    """A decoded value of `table`. Raises ValueError when it is damaged."""
    try:
        size_bytes, published_ns, modified_ns, flags = _ROW.unpack(value)
        return RowSummary(*_FLAGS[flags], size_bytes, modified_ns - _BIAS, published_ns - _BIAS)
    except (struct.error, KeyError) as error:
        raise ValueError("damaged row") from error
