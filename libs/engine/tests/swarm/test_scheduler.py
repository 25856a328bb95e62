"""The scheduler's rules, one by one, and under any list of events."""

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minga_core.chunks import ChunkSet, Geometry
from minga_core.ids import PeerId
from minga_engine.swarm import events as ev
from minga_engine.swarm.config import SwarmConfig
from minga_engine.swarm.scheduler import Scheduler

MIB = 1024 * 1024
A, B, C = PeerId("a"), PeerId("b"), PeerId("c")


def scheduler(chunks: int = 16, held: tuple[int, ...] = (), *, whole: bool = True, **config: object) -> Scheduler:
    """A scheduler of a content of so many chunks of 256 KiB."""
    geometry = Geometry(chunks * 256 * 1024)
    settings = SwarmConfig(**config)  # type: ignore[arg-type]
    return Scheduler(geometry, ChunkSet(chunks, held), settings, random.Random(1), whole=whole)


def requests(actions: list[ev.Action]) -> list[ev.RequestChunk]:
    """The requests among some actions."""
    return [action for action in actions if isinstance(action, ev.RequestChunk)]


def deliver(of: Scheduler, request: ev.RequestChunk, now: float) -> list[ev.Action]:
    """The source chooses its first candidate and sends it."""
    index = next(iter(request.candidates))
    actions = of.handle(ev.ChunkChosen(request.request_id, index), now)
    of.handle(ev.BytesReceived(request.request_id, 256 * 1024), now)
    return actions + of.handle(ev.ChunkArrived(request.request_id, index, 256 * 1024), now)


def test_a_complete_source_is_asked_in_the_same_breath() -> None:
    """No round trip is spent on learning what it has."""
    actions = scheduler().handle(ev.SourceFound(A, complete=True), 0.0)
    assert ev.ConnectSource(A) in actions
    assert [list(request.candidates) for request in requests(actions)] == [list(range(16))]


def test_a_source_that_answers_promptly_is_asked_for_more_at_a_time() -> None:
    """One chunk travels while the next is asked for; one that lets requests wait has one of them."""
    for waited, count in ((0.01, SwarmConfig().max_outstanding), (0.5, 1)):
        one = scheduler()
        (first,) = requests(one.handle(ev.SourceFound(A, complete=True), 0.0))
        more = requests(one.handle(ev.ChunkChosen(first.request_id, 3), waited))
        assert 1 + len(more) == count


def test_a_seed_chooses_among_all_that_no_partial_source_has() -> None:
    """What turns up elsewhere meanwhile is asked for there: the seed's choice claims nothing before it is made."""
    one = scheduler()
    (first,) = requests(one.handle(ev.SourceFound(A, complete=True), 0.0))
    one.handle(ev.SourceFound(B, complete=False), 0.1)
    (second,) = requests(one.handle(ev.SourceHolds(B, ChunkSet(16, [5]), snapshot=True), 0.2))
    assert (second.source, *second.candidates) == (B, 5)
    actions = one.handle(ev.ChunkChosen(first.request_id, 5), 0.3)
    assert ev.CancelRequest(first.request_id) in actions


def test_as_many_requests_are_open_as_there_are_chunks_to_choose() -> None:
    """The last chunks of a file do not come twice."""
    one = scheduler(2)
    (first,) = requests(one.handle(ev.SourceFound(A, complete=True), 0.0))
    (second,) = requests(one.handle(ev.ChunkChosen(first.request_id, 0), 0.01))
    assert list(second.candidates) == [1]
    assert not requests(one.handle(ev.Tick(), 0.02))


def test_a_partial_source_is_asked_once_it_says_what_it_has() -> None:
    """And for nothing else."""
    one = scheduler()
    assert not requests(one.handle(ev.SourceFound(A, complete=False), 0.0))
    asked = requests(one.handle(ev.SourceHolds(A, ChunkSet(16, [3, 5]), snapshot=True), 0.1))
    assert {index for request in asked for index in request.candidates} <= {3, 5}
    assert asked


def test_a_lost_source_is_replaced_at_once() -> None:
    """Its chunks are asked of another in the same breath."""
    one = scheduler(2)
    asked = requests(one.handle(ev.SourceFound(A, complete=True), 0.0))
    one.handle(ev.SourceFound(B, complete=True), 0.0)
    actions = one.handle(ev.SourceLost(A), 0.5)
    again = requests(actions)
    assert {request.source for request in again} == {B}
    lost = {index for request in asked for index in request.candidates}
    assert {index for request in again for index in request.candidates} == lost


def test_a_source_with_a_wrong_chunk_never_comes_back() -> None:
    """Banned, even when it is named again."""
    one = scheduler()
    asked = requests(one.handle(ev.SourceFound(A, complete=True), 0.0))
    actions = one.handle(ev.ChunkCorrupt(asked[0].request_id), 0.1)
    assert any(isinstance(action, ev.DropSource) and action.source == A for action in actions)
    for when in (1.0, 100.0, 10_000.0):
        assert not requests(one.handle(ev.SourceFound(A, complete=True), when))


@pytest.mark.parametrize("loss", [ev.SourceLost(A), ev.Tick()])
def test_a_source_that_only_others_name_is_given_up(loss: ev.Event) -> None:
    """Its address may be a victim's, which would be dialled for ever. The directory brings it back."""
    one, now = scheduler(), 0.0
    actions = one.handle(ev.SourceFound(A, complete=True, listed=False), now)
    for _ in range(20):
        actions += one.handle(loss, now := now + 31.0)
        actions += one.handle(ev.SourceFound(A, complete=True, listed=False), now)
    assert actions.count(ev.ConnectSource(A)) == 3
    assert ev.ConnectSource(A) in one.handle(ev.SourceFound(A, complete=True), now)


def test_a_choice_that_was_not_offered_bans_the_source() -> None:
    """It is not doing what it was asked."""
    one = scheduler(16, held=(7,))
    request = requests(one.handle(ev.SourceFound(A, complete=True), 0.0))[0]
    other = next(index for index in range(16) if index not in request.candidates)
    actions = one.handle(ev.ChunkChosen(request.request_id, other), 0.1)
    assert any(isinstance(action, ev.DropSource) for action in actions)


def test_an_overdue_chunk_is_asked_of_a_second_source() -> None:
    """The loser is cancelled when one of the two has come."""
    one = scheduler(1)
    first = requests(one.handle(ev.SourceFound(A, complete=True), 0.0))[0]
    one.handle(ev.ChunkChosen(first.request_id, 0), 0.1)
    assert not requests(one.handle(ev.SourceFound(B, complete=True), 0.2))
    assert one.wakeup_at is not None
    second = requests(one.handle(ev.Tick(), 6.1))
    assert [request.source for request in second] == [B]
    actions = deliver(one, second[0], 6.2)
    assert ev.CancelRequest(first.request_id) in actions
    assert one.finished
    assert one.hedges == 1


def test_a_source_without_progress_is_dropped_and_comes_back_later() -> None:
    """10 s without a byte; 30 s of rest."""
    one = scheduler()
    one.handle(ev.SourceFound(A, complete=True), 0.0)
    actions = one.handle(ev.Tick(), 10.0)
    assert any(isinstance(action, ev.DropSource) for action in actions)
    assert not requests(one.handle(ev.SourceFound(A, complete=True), 20.0))
    assert requests(one.handle(ev.Tick(), 41.0))


def test_a_busy_source_is_left_alone_for_as_long_as_it_says() -> None:
    """And asked again then."""
    one = scheduler()
    for request in requests(one.handle(ev.SourceFound(A, complete=True), 0.0)):
        one.handle(ev.RequestFailed(request.request_id, ev.FailureReason.BUSY, retry_after_seconds=2.0), 0.1)
    assert not requests(one.handle(ev.Tick(), 1.0))
    assert one.waiting_since is None
    assert requests(one.handle(ev.Tick(), 2.2))


def test_bytes_in_flight_keep_to_the_bound() -> None:
    """However many sources there are; a chunk larger than the bound passes alone."""
    one = scheduler(64, max_outstanding_bytes=1024 * 1024)
    asked = []
    for number in range(10):
        asked += requests(one.handle(ev.SourceFound(PeerId(f"s{number}"), complete=True), 0.0))
    assert len(asked) == 4
    large = scheduler(64, max_outstanding_bytes=1)
    assert len(requests(large.handle(ev.SourceFound(A, complete=True), 0.0))) == 1


def test_without_sources_the_directory_is_asked_again_and_again() -> None:
    """Every two seconds, and it is known since when there is none."""
    one = scheduler()
    asked_at = [when / 10 for when in range(100) if ev.FindSources() in one.handle(ev.Tick(), when / 10)]
    assert asked_at[:3] == [0.0, 2.0, 4.0]
    assert one.waiting_since == 0.0


@pytest.mark.parametrize("why", [ev.FailureReason.LOST, ev.FailureReason.NOT_HELD, ev.FailureReason.CONTENT_CHANGED])
def test_c7_attempts_at_sources_that_fail_do_not_begin_the_wait_anew(why: ev.FailureReason) -> None:
    """A download that gives up after 300 s without a source never did: each attempt was taken for a usable source."""
    one = scheduler()
    actions, now = one.handle(ev.SourceFound(A, complete=True), 0.0), 0.0
    while now < 400:
        for request in requests(actions):
            one.handle(ev.RequestFailed(request.request_id, why), now)
        now += 0.5
        actions = one.handle(ev.Tick(), now)
    assert one.waiting_since is not None
    assert one.waiting_since < 1
    while not (asked := requests(actions)):
        now += 0.5
        actions = one.handle(ev.Tick(), now)
    deliver(one, asked[0], now)
    assert one.waiting_since is None


def test_the_rarest_chunk_is_asked_for_first() -> None:
    """Of two chunks that a source has, the one that fewer others have."""
    one = scheduler(8, held=(0, 1, 2, 3), max_candidates=1, max_outstanding=1)
    for peer in (A, B):
        one.handle(ev.SourceFound(peer, complete=False), 0.0)
    one.handle(ev.SourceHolds(A, ChunkSet(8, [4]), snapshot=True), 0.1)
    one.handle(ev.SourceHolds(B, ChunkSet(8, [4]), snapshot=True), 0.1)
    one.handle(ev.SourceFound(C, complete=False), 0.2)
    asked = requests(one.handle(ev.SourceHolds(C, ChunkSet(8, [4, 5]), snapshot=True), 0.3))
    assert [list(request.candidates) for request in asked] == [[5]]


def test_what_is_read_next_is_requested_and_nothing_else() -> None:
    """One chunk each, the nearest first; once it is here there is nothing to do, and no source is waited for."""
    one = scheduler(whole=False)
    assert not requests(one.handle(ev.SourceFound(A, complete=True), 0.0))
    (first,) = requests(one.handle(ev.ReaderMoved(1, 5, 7, rest=False), 0.1))
    assert list(first.candidates) == [5]
    (second,) = requests(one.handle(ev.ChunkChosen(first.request_id, 5), 0.11))
    assert list(second.candidates) == [6]
    deliver(one, first, 0.2)
    assert not requests(deliver(one, second, 0.2))
    assert one.waiting_since is None
    assert one.wakeup_at is None


def test_what_a_reader_waits_for_comes_before_its_window_and_that_before_the_rest() -> None:
    """And it does not wait for a slot: all slots are taken by what comes after it."""
    one = scheduler(max_outstanding=2)
    (first,) = requests(one.handle(ev.SourceFound(A, complete=True), 0.0))
    one.handle(ev.ChunkChosen(first.request_id, 0), 0.01)
    (awaited,) = requests(one.handle(ev.ReaderMoved(1, 8, 10, rest=True), 0.02))
    assert list(awaited.candidates) == [8]
    (ahead,) = requests(deliver(one, awaited, 0.03) + deliver(one, first, 0.03))
    assert list(ahead.candidates) == [9]


def test_a_reader_among_others_leaves_the_first_chunk_to_a_lone_source() -> None:
    """1. If each reader asked for it, the source would send it to each of them; it has what the others lack to send.
    2. One that has waited for long asks all the same."""
    one = Scheduler(Geometry(16 * 256 * 1024), ChunkSet(16), rng=random.Random(1), contended=True)
    one.handle(ev.ReaderMoved(1, 0, 1, rest=False), 0.0)
    (first,) = requests(one.handle(ev.SourceFound(A, complete=True), 0.0))
    assert list(first.candidates) == list(range(16))
    (second,) = requests(one.handle(ev.Tick(), SwarmConfig().awaited_seconds))
    assert list(second.candidates) == [0]


def test_a_reader_that_leaves_or_moves_stops_what_only_it_wanted() -> None:
    """What another one is about to read goes on."""
    one = scheduler(whole=False)
    one.handle(ev.SourceFound(A, complete=True), 0.0)
    (first,) = requests(one.handle(ev.ReaderMoved(1, 3, 4, rest=False), 0.0))
    (second,) = requests(one.handle(ev.ReaderMoved(2, 9, 10, rest=False), 0.0))
    actions = one.handle(ev.ReaderMoved(1, 9, 10, rest=False), 0.1)
    assert actions == [ev.CancelRequest(first.request_id)]
    assert not one.handle(ev.ReaderLeft(2), 0.2)
    assert one.handle(ev.ReaderLeft(1), 0.3) == [ev.CancelRequest(second.request_id)]


def test_the_fastest_source_sends_what_is_read_next() -> None:
    """As far as is known from what came before."""
    one = scheduler(64, max_outstanding=1, max_outstanding_bytes=4 * MIB)
    now = 0.0
    for source in (A, B):
        one.handle(ev.SourceFound(source, complete=True), now)
    rates = {A: 0.1, B: 1.0}
    asked = [request for number in (1, 2) if (request := one._state.requests.get(number)) is not None]
    for request in sorted(asked, key=lambda each: rates[each.source]):
        index = request.candidates.bit_length() - 1
        one.handle(ev.ChunkChosen(request.request_id, index), rates[request.source] / 2)
        one.handle(ev.BytesReceived(request.request_id, 256 * 1024), rates[request.source])
    (awaited,) = requests(one.handle(ev.ReaderMoved(1, 40, 41, rest=False), 1.0))
    assert (awaited.source, *awaited.candidates) == (A, 40)


def test_a_reader_waits_for_a_source_of_what_it_reads() -> None:
    """Others that have other chunks do not count."""
    one = scheduler(whole=False)
    one.handle(ev.SourceFound(A, complete=False), 0.0)
    one.handle(ev.SourceHolds(A, ChunkSet(16, [3]), snapshot=True), 0.0)
    one.handle(ev.ReaderMoved(1, 5, 6, rest=False), 1.0)
    assert one.waiting_since == 1.0
    one.handle(ev.ReaderLeft(1), 2.0)
    assert one.waiting_since is None


class AnyEvents:
    """Draws events that could come: of sources and requests that the scheduler knows, or does not."""

    def __init__(self, data: st.DataObject, chunks: int) -> None:
        self._data = data
        self._chunks = chunks
        self._open: dict[int, ev.RequestChunk] = {}
        self._chosen: dict[int, int] = {}

    def note(self, actions: list[ev.Action]) -> None:
        for action in actions:
            if isinstance(action, ev.RequestChunk):
                self._open[action.request_id] = action
            if isinstance(action, ev.CancelRequest):
                self._open.pop(action.request_id, None)

    def draw(self) -> ev.Event:
        draw = self._data.draw
        source = PeerId(draw(st.sampled_from("abcdef")))
        kind = draw(st.sampled_from(["found", "moved", "holds", "lost", "tick", "reads", "leaves", *["request"] * 3]))
        if kind == "request" and self._open:
            return self._about(draw(st.sampled_from(sorted(self._open))))
        if kind == "found":
            return ev.SourceFound(source, complete=draw(st.booleans()))
        if kind == "moved":
            return ev.SourceMoved(source)
        if kind == "holds":
            chunks = draw(st.sets(st.integers(0, self._chunks - 1)))
            return ev.SourceHolds(source, ChunkSet(self._chunks, chunks), snapshot=draw(st.booleans()))
        if kind == "reads":
            start, stop = draw(st.integers(0, self._chunks)), draw(st.integers(0, self._chunks + 3))
            return ev.ReaderMoved(draw(st.integers(1, 3)), start, stop, rest=draw(st.booleans()))
        if kind == "leaves":
            return ev.ReaderLeft(draw(st.integers(1, 3)))
        return ev.SourceLost(source) if kind == "lost" else ev.Tick()

    def _about(self, request_id: int) -> ev.Event:
        draw = self._data.draw
        request = self._open[request_id]
        index = self._chosen.setdefault(request_id, draw(st.sampled_from(list(request.candidates))))
        kind = draw(st.sampled_from(["chosen", "bytes", "arrived", "arrived", "failed", "corrupt"]))
        if kind == "chosen":
            return ev.ChunkChosen(request_id, index)
        if kind == "bytes":
            return ev.BytesReceived(request_id, 1000)
        del self._open[request_id]
        if kind == "arrived":
            return ev.ChunkArrived(request_id, index, 1000)
        if kind == "corrupt":
            return ev.ChunkCorrupt(request_id)
        return ev.RequestFailed(request_id, draw(st.sampled_from(ev.FailureReason)), retry_after_seconds=0.5)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data(), st.integers(1, 20), st.booleans())
def test_no_list_of_events_breaks_an_invariant_and_an_honest_source_always_ends_it(
    data: st.DataObject, chunks: int, whole: bool
) -> None:
    """After anything at all: the invariants hold, and with one honest complete source what is wanted comes."""
    one = scheduler(chunks, whole=whole)
    events = AnyEvents(data, chunks)
    now = 0.0
    for _ in range(data.draw(st.integers(0, 60))):
        now += data.draw(st.sampled_from([0.0, 0.01, 1.0, 12.0]))
        event = events.draw()
        events.note(one.handle(event, now))
        if not one.finished and not isinstance(event, ev.BytesReceived):
            one.validate(now)
    asked: list[ev.RequestChunk] = []
    for _ in range(2000):
        if not one._state.missing:
            return
        now += 1.0
        asked += requests(one.handle(ev.SourceFound(PeerId("honest"), complete=True), now))
        for request in [request for request in asked if request.source == "honest"]:
            asked.remove(request)
            asked += requests(deliver(one, request, now))
    raise AssertionError("it does not end")
