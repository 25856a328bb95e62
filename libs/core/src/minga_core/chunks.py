"""Chunk arithmetic: how a content is divided into chunks, and sets of chunks.

The chunk size is a function of the content's size alone, so that every peer computes the same content id for the same
bytes.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache

from minga_core.errors import InvalidArgumentError

MIN_CHUNK_BYTES = 256 * 1024
MAX_CHUNK_BYTES = 16 * 1024 * 1024
_TARGET_CHUNK_COUNT = 256
MAX_CHUNK_COUNT = 1 << 20
MAX_CONTENT_BYTES = MAX_CHUNK_BYTES * MAX_CHUNK_COUNT
"""16 TiB, so that a manifest has 32 MiB at most."""
_WORD_BYTES = 128
"""Of a set of chunks that are looked at together."""


@lru_cache(maxsize=64)
def chunk_size_for(size_bytes: int) -> int:
    """Chunk size of a content: clamp(next power of two of ceil(size / 256), 256 KiB, 16 MiB).

    Raises InvalidArgumentError when size_bytes is negative or above MAX_CONTENT_BYTES.
    """
    if not 0 <= size_bytes <= MAX_CONTENT_BYTES:
        raise InvalidArgumentError(f"a content has 0 to {MAX_CONTENT_BYTES:,} bytes, not {size_bytes:,}")
    wanted = -(-size_bytes // _TARGET_CHUNK_COUNT)
    power = 1 << max(0, wanted - 1).bit_length()
    return max(MIN_CHUNK_BYTES, min(power, MAX_CHUNK_BYTES))


@dataclass(frozen=True, slots=True)
class Geometry:
    """The chunks of one content. All of it follows from the size."""

    size_bytes: int
    chunk_size_bytes: int = field(init=False, repr=False, compare=False)
    """Size of every chunk but the last."""
    chunk_count: int = field(init=False, repr=False, compare=False)
    """0 for an empty content."""

    def __post_init__(self) -> None:
        chunk_size_bytes = chunk_size_for(self.size_bytes)
        object.__setattr__(self, "chunk_size_bytes", chunk_size_bytes)
        object.__setattr__(self, "chunk_count", -(-self.size_bytes // chunk_size_bytes))

    def offset(self, index: int) -> int:
        """First byte of chunk `index`, counted from the content's start. Raises InvalidArgumentError past the end."""
        self._check(index)
        return index * self.chunk_size_bytes

    def length(self, index: int) -> int:
        """Size of chunk `index` in bytes. Raises InvalidArgumentError past the end."""
        self._check(index)
        return min(self.chunk_size_bytes, self.size_bytes - index * self.chunk_size_bytes)

    def _check(self, index: int) -> None:
        if not 0 <= index < self.chunk_count:
            raise InvalidArgumentError(f"there is no chunk {index}: the content has {self.chunk_count}")


class ChunkSet:
    """A mutable set of chunk indexes out of 0 … count-1, as a bitmap.

    Bytes form: bit i of byte i // 8, least significant first; ceil(count / 8) bytes; bits past the count are zero.
    """

    __slots__ = ("_bits", "count")

    def __init__(self, count: int, members: Iterable[int] = ()) -> None:
        if not 0 <= count <= MAX_CHUNK_COUNT:
            raise InvalidArgumentError(f"a chunk set counts 0 to {MAX_CHUNK_COUNT:,} chunks, not {count}")
        self.count = count
        self._bits = 0
        if members != ():
            bitmap = bytearray(-(-count // 8))
            for index in members:
                self._check(index)
                bitmap[index >> 3] |= 1 << (index & 7)
            self._bits = int.from_bytes(bitmap, "little")

    @classmethod
    def full(cls, count: int) -> "ChunkSet":
        """All chunks."""
        made = cls(count)
        made._bits = (1 << count) - 1
        return made

    @classmethod
    def from_ranges(cls, count: int, ranges: Iterable[tuple[int, int]]) -> "ChunkSet":
        """Chunks in half-open ranges (start, end). Raises InvalidArgumentError for one that is empty or outside."""
        made = cls(count)
        # Of few chunks shifting an integer takes a quarter of the time of a bitmap; of many its copies take a minute.
        made._bits = (_bits_of_few if count <= 8 * _WORD_BYTES else _bits_of_many)(count, ranges)
        return made

    @classmethod
    def from_bytes(cls, count: int, data: bytes) -> "ChunkSet":
        """The set whose bytes form is `data`. Raises InvalidArgumentError when it is not that of `count` chunks."""
        made = cls(count)
        bits = int.from_bytes(data, "little")
        if len(data) != -(-count // 8) or bits >> count:
            raise InvalidArgumentError(f"not a bitmap of {count} chunks")
        made._bits = bits
        return made

    def to_bytes(self) -> bytes:
        """The bytes form."""
        return self._bits.to_bytes(-(-self.count // 8), "little")

    @property
    def bits(self) -> int:
        """The set as an integer: bit i is chunk i. For arithmetic over many chunks at once."""
        return self._bits

    @classmethod
    def from_bits(cls, count: int, bits: int) -> "ChunkSet":
        """The set whose integer is `bits`. Raises InvalidArgumentError when it has members outside."""
        made = cls(count)
        if bits < 0 or bits >> count:
            raise InvalidArgumentError(f"not a set of {count} chunks")
        made._bits = bits
        return made

    def ranges(self) -> Iterator[tuple[int, int]]:
        """Half-open ranges (start, end) of the members, ascending, with a gap between any two."""
        # An edge is a chunk that is a member where the one before is not, or the other way round. They are looked for
        # in words: each step on an integer of all chunks would cost as much as there are chunks.
        edges = self._bits ^ self._bits << 1
        size = self.count // 8 + 1
        packed = edges.to_bytes(size, "little") if size > _WORD_BYTES else b""
        start = -1
        for first in range(0, size, _WORD_BYTES):
            word = int.from_bytes(packed[first : first + _WORD_BYTES], "little") if packed else edges
            while word:
                edge = 8 * first + (word & -word).bit_length() - 1
                word &= word - 1
                if start < 0:
                    start = edge
                else:
                    yield start, edge
                    start = -1

    def add(self, index: int) -> None:
        """Add `index`. Raises InvalidArgumentError when it is outside."""
        self._check(index)
        self._bits |= 1 << index

    def _check(self, index: int) -> None:
        if not 0 <= index < self.count:
            raise InvalidArgumentError(f"chunk {index} is outside of {self.count}")

    def discard(self, index: int) -> None:
        """Remove `index` if it is a member."""
        if 0 <= index < self.count:
            self._bits &= ~(1 << index)

    def copy(self) -> "ChunkSet":
        """A new set with the same members."""
        return self._made(self._bits)

    def _made(self, bits: int) -> "ChunkSet":
        made = ChunkSet(self.count)
        made._bits = bits
        return made

    def __contains__(self, index: int) -> bool:
        return 0 <= index < self.count and bool(self._bits >> index & 1)

    def __len__(self) -> int:
        return self._bits.bit_count()

    def __iter__(self) -> Iterator[int]:
        for start, end in self.ranges():
            yield from range(start, end)

    def __bool__(self) -> bool:
        return self._bits != 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ChunkSet) and (self.count, self._bits) == (other.count, other._bits)

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __or__(self, other: "ChunkSet") -> "ChunkSet":
        return self._made(self._bits | other._bits & ((1 << self.count) - 1))

    def __and__(self, other: "ChunkSet") -> "ChunkSet":
        return self._made(self._bits & other._bits)

    def __sub__(self, other: "ChunkSet") -> "ChunkSet":
        return self._made(self._bits & ~other._bits)

    @property
    def complete(self) -> bool:
        """Whether every chunk is a member; true for a count of 0."""
        return self._bits.bit_count() == self.count

    def missing(self) -> "ChunkSet":
        """The chunks that are not members."""
        return self._made(((1 << self.count) - 1) & ~self._bits)

    def __repr__(self) -> str:
        return f"ChunkSet({len(self)}/{self.count})"


def _check_range(count: int, start: int, end: int) -> None:
    if not 0 <= start < end <= count:
        raise InvalidArgumentError(f"chunks {start} to {end} are not a range within {count}")


def _bits_of_few(count: int, ranges: Iterable[tuple[int, int]]) -> int:
    """The integer of half-open ranges. Each range copies all of it."""
    bits = 0
    for start, end in ranges:
        _check_range(count, start, end)
        bits |= (1 << end) - (1 << start)
    return bits


def _bits_of_many(count: int, ranges: Iterable[tuple[int, int]]) -> int:
    """The same, in time that grows with the number of ranges and of chunks, and not with their product."""
    bitmap, reached = bytearray(-(-count // 8)), 0
    for start, end in sorted(ranges):
        _check_range(count, start, end)
        # What earlier ranges have set is not set again: their overlaps may be many and large.
        _set_range(bitmap, max(start, reached), end)
        reached = max(reached, end)
    return int.from_bytes(bitmap, "little")


def _set_range(bitmap: bytearray, start: int, end: int) -> None:
    """Sets bits start … end-1."""
    if start >= end:
        return
    first, last = start >> 3, end >> 3
    if first == last:
        bitmap[first] |= (1 << (end & 7)) - (1 << (start & 7))
        return
    bitmap[first] |= 0x100 - (1 << (start & 7))
    bitmap[first + 1 : last] = b"\xff" * (last - first - 1)
    if end & 7:
        bitmap[last] |= (1 << (end & 7)) - 1
