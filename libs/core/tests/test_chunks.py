"""How sizes are cut, and sets of chunks."""

import time
from collections import deque
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minga_core.chunks import MAX_CHUNK_BYTES, MAX_CONTENT_BYTES, MIN_CHUNK_BYTES, ChunkSet, Geometry, chunk_size_for
from minga_core.errors import InvalidArgumentError

KIB, MIB = 1024, 1024 * 1024

members = st.integers(1, 300).flatmap(lambda count: st.tuples(st.just(count), st.sets(st.integers(0, count - 1))))


@pytest.mark.parametrize(
    ("size_bytes", "chunk_bytes"),
    [
        (0, 256 * KIB),
        (64 * MIB, 256 * KIB),
        (64 * MIB + 1, 512 * KIB),
        (128 * MIB, 512 * KIB),
        (512 * MIB, 2 * MIB),
        (1024 * MIB, 4 * MIB),
        (4096 * MIB, 16 * MIB),
        (MAX_CONTENT_BYTES, 16 * MIB),
    ],
)
def test_chunk_size_is_the_next_power_of_two_of_a_256th_within_its_bounds(size_bytes: int, chunk_bytes: int) -> None:
    """clamp(next_pow2(size / 256), 256 KiB, 16 MiB)."""
    assert chunk_size_for(size_bytes) == chunk_bytes


@given(st.integers(0, MAX_CONTENT_BYTES))
def test_chunks_cover_a_content_without_gap_or_overlap(size_bytes: int) -> None:
    """The last chunk ends where the content ends, and none is empty."""
    geometry = Geometry(size_bytes)
    assert MIN_CHUNK_BYTES <= geometry.chunk_size_bytes <= MAX_CHUNK_BYTES
    if size_bytes == 0:
        assert geometry.chunk_count == 0
        return
    last = geometry.chunk_count - 1
    assert geometry.offset(last) + geometry.length(last) == size_bytes
    assert 0 < geometry.length(last) <= geometry.chunk_size_bytes


@pytest.mark.parametrize("size_bytes", [-1, MAX_CONTENT_BYTES + 1, 1 << 64])
def test_absurd_sizes_are_refused(size_bytes: int) -> None:
    """A size outside of 0 to 16 TiB has no geometry."""
    with pytest.raises(InvalidArgumentError):
        Geometry(size_bytes)


def test_there_is_no_chunk_past_the_end() -> None:
    """Indexes outside of the content are refused, negative ones too."""
    geometry = Geometry(300 * KIB)
    assert [geometry.length(0), geometry.length(1)] == [256 * KIB, 44 * KIB]
    for index in (-1, 2):
        with pytest.raises(InvalidArgumentError):
            geometry.length(index)


@given(members)
def test_every_form_of_a_chunk_set_gives_the_same_set_back(case: tuple[int, set[int]]) -> None:
    """Bytes and ranges are round trips."""
    count, indexes = case
    chunks = ChunkSet(count, indexes)
    assert list(chunks) == sorted(indexes)
    assert len(chunks) == len(indexes)
    assert ChunkSet.from_bytes(count, chunks.to_bytes()) == chunks
    assert ChunkSet.from_ranges(count, chunks.ranges()) == chunks
    assert chunks.missing().missing() == chunks
    assert chunks.complete == (len(indexes) == count)


@given(members, st.data())
def test_set_operations_are_those_of_sets(case: tuple[int, set[int]], data: st.DataObject) -> None:
    """Union, intersection and difference agree with Python's sets."""
    count, left = case
    right = data.draw(st.sets(st.integers(0, count - 1)))
    one, other = ChunkSet(count, left), ChunkSet(count, right)
    assert set(one | other) == left | right
    assert set(one & other) == left & right
    assert set(one - other) == left - right


@given(st.lists(st.tuples(st.integers(0, 99), st.integers(1, 100)).map(lambda pair: (min(pair), max(pair) + 1))))
def test_ranges_may_overlap_and_come_in_any_order(ranges: list[tuple[int, int]]) -> None:
    """The set is their union."""
    wanted = {index for start, end in ranges for index in range(start, end)}
    assert set(ChunkSet.from_ranges(101, ranges)) == wanted


@pytest.mark.parametrize("work", ["ranges", "from_ranges", "members", "nested"])
def test_work_on_many_ranges_grows_with_their_number_and_not_its_square(work: str) -> None:
    """Every other chunk of a content, up to that of 4 TiB: four times the chunks cost some four times the work.

    Also ranges that all overlap, as a hostile peer may say them."""

    def seconds(count: int) -> float:
        gaps = [(index, index + 1) for index in range(0, count, 2)]
        nested = [(index, count) for index in range(0, count, 2)]
        chunks = ChunkSet.from_ranges(count, gaps)
        works: dict[str, Callable[[], object]] = {
            "ranges": lambda: deque(chunks.ranges(), maxlen=0),
            "from_ranges": lambda: ChunkSet.from_ranges(count, gaps),
            "members": lambda: ChunkSet(count, range(0, count, 2)),
            "nested": lambda: ChunkSet.from_ranges(count, nested),
        }
        started = time.process_time()
        works[work]()
        return time.process_time() - started

    large = 4 * 1024**4 // MAX_CHUNK_BYTES
    assert min(seconds(large) for _ in range(3)) < 9 * min(seconds(large // 4) for _ in range(5))


@pytest.mark.parametrize("ranges", [[(0, 0)], [(3, 2)], [(-1, 2)], [(0, 11)]])
def test_ranges_that_leave_the_content_are_refused(ranges: list[tuple[int, int]]) -> None:
    """Ranges from outside are checked."""
    with pytest.raises(InvalidArgumentError):
        ChunkSet.from_ranges(10, ranges)


@pytest.mark.parametrize("data", [b"", b"\0\0\0", b"\0\xfc"])
def test_a_bitmap_of_another_length_or_with_bits_past_the_end_is_refused(data: bytes) -> None:
    """There is exactly one bytes form of a set."""
    with pytest.raises(InvalidArgumentError):
        ChunkSet.from_bytes(10, data)
