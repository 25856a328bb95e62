"""Messages made by their descriptor, with hostile values; and good ones that were damaged."""

import random
from collections.abc import Callable
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

HOSTILE_TEXTS = (
    "", ".", "..", "../x", "/etc/passwd", "a/../b", "a//b", "a/", "a\\b", "a\0b", "a\nb", "a\x1bb", "a\u2028b", "CON",
    "e\u0301", "\u00e9", "\u212b", "\ufeffx", "\u202etxt.exe", "a" * 128, "a" * 129, "a" * 1025, "\u00e9" * 600,
    "x/" * 600 + "x", " ", "-rf", ".minga", ".minga/index.db", "\U0001f600", "\ufffe", "fuzz-peer", "127.0.0.1:1",
    "[::1]:0", "::1", "host:99999", "host:", ":1", "a" * 300 + ":1", "%2e%2e", "{a}", "*", "minga:v1:peer", "\x7f",
    "\ud7ff",
)  # fmt: skip
HOSTILE_INTS = (0, 1, -1, 2, 63, 64, 65, 127, 1000, 2**31 - 1, -(2**31), 2**53, 2**62, 2**63 - 1, -(2**63), 10**12)
HOSTILE_BYTES = (b"", b"\0", bytes(31), bytes(32), bytes(33), b"\xff" * 32, b"\xc3\x28", bytes(1000))

_INT32 = {FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_UINT32, FieldDescriptor.CPPTYPE_ENUM}
_texts = st.one_of(st.sampled_from(HOSTILE_TEXTS), st.text(max_size=40))
_bytes = st.one_of(st.sampled_from(HOSTILE_BYTES), st.binary(max_size=40), st.binary(min_size=32, max_size=32))
_ints = st.one_of(st.sampled_from(HOSTILE_INTS), st.integers(-(2**63), 2**63 - 1), st.integers(0, 5))


def hostile(descriptor: Descriptor, good: Callable[[], Message] | None = None) -> st.SearchStrategy[Message]:
    """Messages of that type. good: makes one that is accepted; then often only some of its fields are replaced."""
    fields = {field.name: _field(field) for field in descriptor.fields}
    made = st.fixed_dictionaries({}, optional=fields).map(lambda values: _made(descriptor, values))
    if good is None:
        return made
    return st.one_of(made, made.map(lambda message: _merged(good(), message)))


def _made(descriptor: Descriptor, values: dict[str, Any]) -> Message:
    return GetMessageClass(descriptor)(**values)


def _merged(good: Message, change: Message) -> Message:
    for field, _ in change.ListFields():
        good.ClearField(field.name)
    good.MergeFrom(change)
    return good


def _field(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    value = _value(field)
    return st.lists(value, max_size=4) if field.is_repeated else value


def _value(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    kind = field.cpp_type
    if kind == FieldDescriptor.CPPTYPE_MESSAGE:
        return hostile(field.message_type)
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return st.booleans()
    if kind == FieldDescriptor.CPPTYPE_STRING:
        return _bytes if field.type == FieldDescriptor.TYPE_BYTES else _texts
    if kind in _INT32:
        return _ints.map(lambda value: (value + 2**31) % 2**32 - 2**31)
    if kind == FieldDescriptor.CPPTYPE_INT64:
        return _ints
    raise NotImplementedError(f"{field.full_name}: the contracts have no such field yet")


def damaged(data: bytes, rng: random.Random) -> bytes:
    """A message with bytes changed, removed, inserted or repeated at random."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(changed) + 1)
        kind = rng.randrange(6)
        if kind == 0 and changed:
            changed[min(at, len(changed) - 1)] = rng.randrange(256)
        elif kind == 1:
            del changed[at:]
        elif kind == 2:
            changed[at:at] = rng.randbytes(rng.randint(1, 8))
        elif kind == 3:
            changed[at:at] = changed[:at]
        elif kind == 4:
            # A length that is longer than what follows, and text that is no UTF-8.
            changed += bytes([rng.choice((0x0A, 0x12, 0x1A, 0x22))]) + rng.choice(
                (b"\xff\xff\xff\xff\x0f", b"\x02\xc3\x28")
            )
        else:
            changed += rng.randbytes(rng.randint(0, 64))
    return bytes(changed)
