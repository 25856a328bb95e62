"""Contents of up to 16 TiB, a million chunks: scheduling them costs what their number says, not its square."""

import random
import time

import pytest

from minga_core.chunks import MAX_CHUNK_BYTES, MAX_CONTENT_BYTES, ChunkSet, Geometry
from minga_core.ids import PeerId
from minga_engine.swarm import events as ev
from minga_engine.swarm.planning import OPEN_CANDIDATES, _every_nth
from minga_engine.swarm.scheduler import Scheduler
from minga_engine.swarm.state import bitmap_of, members

TIB = 1 << 40
COMPLETE, PARTIAL = PeerId("complete"), PeerId("partial")


def started(size_bytes: int) -> tuple[Scheduler, list[ev.RequestChunk]]:
    """A download from a complete source, and one that has every other chunk."""
    one = Scheduler(Geometry(size_bytes), ChunkSet(Geometry(size_bytes).chunk_count), rng=random.Random(1))
    count = Geometry(size_bytes).chunk_count
    actions = one.handle(ev.SourceFound(COMPLETE, complete=True), 0.0)
    actions += one.handle(ev.SourceFound(PARTIAL, complete=False), 0.0)
    actions += one.handle(ev.SourceHolds(PARTIAL, ChunkSet(count, range(0, count, 2)), snapshot=True), 0.0)
    return one, [action for action in actions if isinstance(action, ev.RequestChunk)]


def fetch(one: Scheduler, asked: list[ev.RequestChunk], chunks: int) -> None:
    """So many chunks arrive, and the partial source gets others meanwhile."""
    now = 0.0
    for number in range(chunks):
        now += 0.01
        request = asked.pop(0)
        index = request.candidates.bits.bit_length() - 1
        actions = one.handle(ev.ChunkChosen(request.request_id, index), now)
        actions += one.handle(ev.ChunkArrived(request.request_id, index, MAX_CHUNK_BYTES), now)
        got = ChunkSet(one.held.count, [2 * number + 1])
        actions += one.handle(ev.SourceHolds(PARTIAL, got, snapshot=False), now)
        ended = {action.request_id for action in actions if isinstance(action, ev.CancelRequest)}
        asked += [action for action in actions if isinstance(action, ev.RequestChunk)]
        asked[:] = [each for each in asked if each.request_id not in ended]


def seconds(size_bytes: int) -> tuple[float, float]:
    """Processor time for the start of a download, and for a chunk of it."""
    began = time.process_time()
    one, asked = started(size_bytes)
    fetching = time.process_time()
    fetch(one, asked, 20)
    return fetching - began, (time.process_time() - fetching) / 20


def test_scheduling_grows_with_the_number_of_chunks_and_not_its_square() -> None:
    """A fault: 65 ms of the event loop for each chunk of 1 TiB, and seconds for one of 4 TiB. 16 times the chunks."""
    small = [seconds(TIB // 4) for _ in range(3)]
    large = [seconds(4 * TIB) for _ in range(2)]
    assert min(start for start, _ in large) < 60 * min(start for start, _ in small)
    assert min(each for _, each in large) < 16 * min(each for _, each in small)


def test_the_largest_content_is_scheduled() -> None:
    """Requests are bounded, and those of a chunk at the very end are as good as any."""
    one, asked = started(MAX_CONTENT_BYTES)
    assert all(len(request.candidates) <= OPEN_CANDIDATES for request in asked)
    fetch(one, asked, 20)
    assert one.held_count > 10, "two requests may be answered with one chunk"
    lost = one.handle(ev.SourceHolds(PARTIAL, ChunkSet(one.held.count), snapshot=True), 1.0)
    assert not any(isinstance(action, ev.DropSource) for action in lost)


@pytest.mark.parametrize("gap", [1, 7, 1000, 5000])
def test_members_of_a_bitmap_are_those_that_are_set(gap: int) -> None:
    """Across windows, and with a limit."""
    indexes = [*range(0, 20_000, gap), 1_000_000]
    bits = bitmap_of(indexes, 1_000_001)
    assert bits == sum(1 << index for index in indexes)
    assert members(bits) == indexes
    assert members(bits, 3) == indexes[:3]
    assert members(0) == []


@pytest.mark.parametrize(("count", "step", "first"), [(1, 1, 0), (10, 3, 2), (10, 3, 1), (10, 24, 9), (5, 24, 10)])
def test_every_nth_chunk(count: int, step: int, first: int) -> None:
    """Without a step for each."""
    assert members(_every_nth(count, step, first)) == list(range(first, count, step))
