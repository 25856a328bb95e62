"""What a download's record makes of the scheduler's events: bytes by source, pauses by cause, the bound."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from minga_core.chunks import Geometry
from minga_core.clock import ManualClock
from minga_core.ids import parse_peer_id
from minga_engine.explanation import Explanation, Phase, SlowReason, SourceShare, WaitCause
from minga_engine.swarm import events as ev
from minga_engine.swarm.events import FailureReason
from minga_engine.transfer.explaining import TransferRecord
from minga_runtime.rate_limit import BURST_SECONDS, RateLimit

EXPLAIN_MD = Path(__file__).parents[4] / "docs" / "explain.md"
KIB = 1024
CHUNK = 256 * KIB
A, B = parse_peer_id("peer-a"), parse_peer_id("peer-b")


class Download:
    """A record of a download, fed step by step."""

    def __init__(self, chunk_count: int = 8, limit: RateLimit | None = None) -> None:
        self.clock = ManualClock()
        self.record = TransferRecord(self.clock, limit)
        self.geometry = Geometry(chunk_count * CHUNK)
        self._request_id = 0
        self._next_index = 0

    def fetching(self, *sources: str) -> None:
        """Located, the manifest is there, complete sources are connected."""
        self.record.geometry(self.geometry)
        self.record.begin(Phase.FETCHING)
        for source in sources:
            self.record.event(ev.SourceFound(parse_peer_id(source), complete=True))
            self.record.instruction(ev.ConnectSource(parse_peer_id(source)))

    def ask(self, source: str) -> int:
        """A request goes out."""
        self._request_id += 1
        self.record.instruction(ev.RequestChunk(self._request_id, parse_peer_id(source), (0, 1)))
        return self._request_id

    def chunk(self, request_id: int, seconds: float, index: int | None = None) -> None:
        """A chunk comes, in four pieces over some seconds."""
        if index is None:
            index, self._next_index = self._next_index, self._next_index + 1
        self.record.event(ev.ChunkChosen(request_id, index))
        for _ in range(4):
            self.clock.advance(seconds / 4)
            self.record.event(ev.BytesReceived(request_id, CHUNK // 4))
        self.record.event(ev.ChunkArrived(request_id, index, CHUNK))

    def explained(self) -> Explanation:
        """What the record makes of it."""
        return self.record.explanation()


def share_of(explanation: Explanation, source: str) -> SourceShare:
    """One source's part."""
    return next(item for item in explanation.sources if item.peer_id == source)


def test_bytes_chunks_and_rate_are_told_by_source() -> None:
    """A source's rate counts the time in which it had something to do, and no other."""
    download = Download()
    download.fetching(A, B)
    for _ in range(3):
        download.chunk(download.ask(A), 0.1)
    download.clock.advance(5.0)
    download.chunk(download.ask(B), 0.2)
    found = download.explained()
    assert [item.peer_id for item in found.sources] == [A, B]
    first, second = found.sources
    assert (first.received_bytes, first.chunk_count) == (3 * CHUNK, 3)
    assert first.rate == pytest.approx(CHUNK / 0.1)
    assert second.rate == pytest.approx(CHUNK / 0.2)
    assert found.wasted_bytes == 0


def test_time_is_told_by_phase() -> None:
    """Each second belongs to one phase; together they are all of them."""
    download = Download()
    download.clock.advance(0.5)
    download.record.begin(Phase.MANIFEST)
    download.clock.advance(0.25)
    download.fetching(A)
    download.chunk(download.ask(A), 1.0)
    download.record.begin(Phase.FINISHING)
    download.clock.advance(0.75)
    found = download.explained()
    assert found.phase_seconds == pytest.approx(
        {Phase.LOCATING: 0.5, Phase.MANIFEST: 0.25, Phase.FETCHING: 1.0, Phase.FINISHING: 0.75}
    )
    assert found.seconds == pytest.approx(sum(found.phase_seconds.values()))


def test_a_pause_with_all_sources_busy_is_told_as_that() -> None:
    """Nothing came for 1.2 s: all sources busy."""
    download = Download()
    download.fetching(A)
    for _ in range(4):
        download.chunk(download.ask(A), 0.1)
    download.record.event(ev.RequestFailed(download.ask(A), FailureReason.BUSY, retry_after_seconds=1.2))
    download.clock.advance(1.2)
    download.record.event(ev.Tick())
    download.chunk(download.ask(A), 0.1)
    found = download.explained()
    assert found.waited_seconds == pytest.approx({WaitCause.BUSY: 1.2, WaitCause.SILENCE: 0.025})
    assert found.longest_wait_seconds == pytest.approx(1.225)
    assert share_of(found, A).busy_answers == 1


def test_a_source_that_was_asked_and_has_not_begun_is_waited_for() -> None:
    """Its queue is something else than its rate."""
    download = Download()
    download.fetching(A)
    request_id = download.ask(A)
    download.clock.advance(3.0)
    download.chunk(request_id, 0.1)
    found = download.explained()
    assert found.waited_seconds == pytest.approx({WaitCause.QUEUE: 3.0, WaitCause.SILENCE: 0.025})
    source = share_of(found, A)
    assert (source.working_seconds, source.queued_seconds) == (pytest.approx(3.1), pytest.approx(3.0))


def test_a_source_that_begins_and_falls_silent_is_waited_for() -> None:
    """As when its machine has gone to sleep."""
    download = Download()
    download.fetching(A)
    request_id = download.ask(A)
    download.record.event(ev.ChunkChosen(request_id, 0))
    download.record.event(ev.BytesReceived(request_id, CHUNK // 2))
    download.clock.advance(4.0)
    download.record.event(ev.BytesReceived(request_id, CHUNK // 2))
    found = download.explained()
    assert found.waited_seconds == pytest.approx({WaitCause.SILENCE: 4.0})
    assert share_of(found, A).queued_seconds == 0


def test_time_without_any_source_is_a_phase_of_its_own() -> None:
    """Not fetching: there is nobody to fetch from."""
    download = Download()
    download.fetching(A)
    download.chunk(download.ask(A), 0.2)
    request_id = download.ask(A)
    download.record.event(ev.RequestFailed(request_id, FailureReason.LOST))
    download.record.instruction(ev.DropSource(A, ev.DropReason.REQUEST_LOST))
    download.clock.advance(7.0)
    download.record.event(ev.Tick())
    download.record.instruction(ev.ConnectSource(A))
    download.chunk(download.ask(A), 0.2)
    found = download.explained()
    assert found.phase_seconds == pytest.approx({Phase.FETCHING: 0.4, Phase.WAITING: 7.0})
    assert found.waited_seconds[WaitCause.NO_SOURCE] == pytest.approx(7.0)
    lost = share_of(found, A)
    assert (lost.losses, dict(lost.drops)) == (1, {"request lost": 1})


def test_writing_is_waited_for_when_all_that_was_asked_for_has_come() -> None:
    """A slow disk is not the sources' fault."""
    download = Download()
    download.fetching(A)
    request_id = download.ask(A)
    download.record.event(ev.ChunkChosen(request_id, 0))
    download.record.event(ev.BytesReceived(request_id, CHUNK))
    download.clock.advance(2.0)
    download.record.event(ev.ChunkArrived(request_id, 0, CHUNK))
    download.record.begin(Phase.FINISHING)
    assert download.explained().waited_seconds == pytest.approx({WaitCause.DISK: 2.0})


async def test_the_own_limit_is_waited_for_when_it_holds_the_bytes_back() -> None:
    """Whatever else went on meanwhile: without the limit the bytes would have come."""
    download = Download()

    async def sleep(seconds: float) -> None:
        download.clock.advance(seconds)

    limit = RateLimit(64 * KIB, download.clock, sleep)
    download.record = TransferRecord(download.clock, limit)
    download.fetching(A)
    request_id = download.ask(A)
    download.record.event(ev.BytesReceived(request_id, CHUNK))
    await limit.take(CHUNK)
    await limit.take(CHUNK)
    download.record.event(ev.BytesReceived(request_id, CHUNK))
    found = download.explained()
    assert list(found.waited_seconds) == [WaitCause.LIMIT]
    assert found.limit_rate == 64 * KIB


def test_a_slow_and_steady_download_has_no_pauses() -> None:
    """Messages that come every half second, as long as they take, are no pauses; the wait for the first one is."""
    download = Download()
    download.fetching(A)
    for _ in range(8):
        download.chunk(download.ask(A), 2.0)
    assert download.explained().waited_seconds == pytest.approx({WaitCause.SILENCE: 0.5})


def test_second_copies_and_broken_off_chunks_are_wasted() -> None:
    """What came and was not kept is counted by bytes."""
    download = Download()
    download.fetching(A, B)
    first, second = download.ask(A), download.ask(B)
    download.chunk(first, 0.1, index=0)
    download.chunk(second, 0.1, index=0)
    third = download.ask(B)
    download.record.event(ev.BytesReceived(third, CHUNK // 2))
    download.record.instruction(ev.CancelRequest(third))
    found = download.explained()
    assert (found.duplicates, found.wasted_bytes) == (1, CHUNK + CHUNK // 2)
    assert (share_of(found, A).chunk_count, share_of(found, B).chunk_count) == (1, 0)


def test_a_wrong_chunk_is_told_with_its_source() -> None:
    """And names the source as the slowest for that reason."""
    download = Download()
    download.fetching(A, B)
    download.chunk(download.ask(A), 0.1)
    request_id = download.ask(B)
    download.clock.advance(0.3)
    download.record.event(ev.BytesReceived(request_id, CHUNK))
    download.record.event(ev.ChunkCorrupt(request_id))
    download.record.instruction(ev.DropSource(B, ev.DropReason.WRONG_CHUNK))
    found = download.explained()
    assert share_of(found, B).corrupt_chunks == 1
    assert found.slowest is not None
    assert (found.slowest.source.peer_id, found.slowest.reason) == (B, SlowReason.CORRUPT)


def test_events_of_requests_that_are_over_are_nothing() -> None:
    """A late message of a cancelled call counts nowhere."""
    download = Download()
    download.fetching(A)
    request_id = download.ask(A)
    download.record.instruction(ev.CancelRequest(request_id))
    download.record.event(ev.ChunkChosen(request_id, 0))
    download.record.event(ev.BytesReceived(request_id, CHUNK))
    download.record.event(ev.RequestFailed(request_id, FailureReason.LOST))
    download.record.event(ev.ChunkCorrupt(request_id))
    found = download.explained()
    assert share_of(found, A) == SourceShare(A, complete=True)
    assert found.wasted_bytes == 0


def test_the_bound_is_the_best_second() -> None:
    """Ten chunks in one second, then ten in nine: 20 chunks at the best rate take 2 s, and it took 10."""
    download = Download(chunk_count=20)
    download.fetching(A)
    for _ in range(10):
        download.chunk(download.ask(A), 0.1)
    for _ in range(10):
        download.chunk(download.ask(A), 0.9)
    found = download.explained()
    assert found.best_rate == pytest.approx(10 * CHUNK, rel=0.1)
    assert found.bound_seconds == pytest.approx(2.0, rel=0.1)
    assert found.ratio_to_bound == pytest.approx(5.0, rel=0.1)


def test_the_bound_is_the_limit_when_that_is_lower() -> None:
    """A limit above what comes is no bound."""
    explained = Explanation(seconds=11.7, size_bytes=1000, best_rate=200.0, limit_rate=100.0)
    assert (explained.limited, explained.bound_seconds) == (True, 10.0 - BURST_SECONDS)
    assert explained.ratio_to_bound == pytest.approx(1.2)
    explained = Explanation(seconds=6.0, size_bytes=1000, best_rate=200.0, limit_rate=300.0)
    assert (explained.limited, explained.bound_seconds, explained.ratio_to_bound) == (False, 5.0, 1.2)


@pytest.mark.parametrize(
    ("known", "reason"),
    [
        ({}, SlowReason.RATE),
        ({"received_bytes": 95}, SlowReason.EVEN),
        ({"complete": False}, SlowReason.PARTIAL),
        ({"busy_answers": 9}, SlowReason.BUSY),
        ({"complete": False, "queued_seconds": 0.9}, SlowReason.QUEUE),
        ({"losses": 1}, SlowReason.LOST),
        ({"drops": {"no progress": 1}, "chunk_count": 0, "received_bytes": 0}, SlowReason.DROPPED),
    ],
)
def test_why_a_source_was_the_slowest(known: dict[str, Any], reason: SlowReason) -> None:
    """The weightiest of what is known of it."""
    others = [SourceShare(parse_peer_id(f"other-{i}"), True, False, 100, 4, 1.0) for i in range(3)]
    source = SourceShare(A, True, False, 10, 4, 1.0)
    slowest = Explanation(sources=(*others, replace(source, **known))).slowest
    assert slowest is not None
    assert (slowest.source.peer_id, slowest.reason) == (A, reason)


def test_the_log_line_has_the_five_largest_sources() -> None:
    """Stable names, plain values."""
    sources = tuple(SourceShare(parse_peer_id(f"p{i}"), True, False, 100 - i, 1, 1.0) for i in range(9))
    fields = Explanation(seconds=2.0, size_bytes=864, sources=sources, best_rate=1000.0).log_fields()
    assert fields["bytes_by_source"] == {"p0": 100, "p1": 99, "p2": 98, "p3": 97, "p4": 96}
    assert (fields["sources"], fields["slowest_source"], fields["slowest_reason"]) == (9, "p8", "even")
    assert fields["ratio_to_bound"] == 2.31


def test_every_field_of_the_log_line_has_its_line_in_the_docs() -> None:
    """docs/explain.md is what operators build their queries on."""
    text = EXPLAIN_MD.read_text()
    words = [*Explanation().log_fields(), *Phase, *WaitCause, *SlowReason]
    assert [word for word in words if f"`{word}`" not in text] == []
