"""The serving side's rules: who is next, and with which chunk."""

import random

from hypothesis import given
from hypothesis import strategies as st

from minga_core.ids import ContentId
from minga_engine.swarm.chunk_counts import ChunkCounts
from minga_engine.swarm.serving_queue import ServingConfig, ServingQueue, ServingRequest

CONTENT = ContentId(bytes(32))
CHUNK = 1024


def bits(*indexes: int) -> int:
    """A bitmap of some chunks."""
    return sum(1 << index for index in indexes)


ALL = bits(*range(16))


def queue(**config: object) -> ServingQueue:
    """A queue whose ties fall always alike."""
    return ServingQueue(ServingConfig(**config), random.Random(1))  # type: ignore[arg-type]


def ask(of: ServingQueue, candidates: int, downloader: str, now: float = 0.0) -> int:
    """A request that is taken in."""
    request_id = of.ask(CONTENT, candidates, downloader, CHUNK, now)
    assert request_id is not None
    return request_id


def take(of: ServingQueue, now: float = 0.0, held: int = ALL) -> ServingRequest | None:
    """Whose turn it is."""
    return of.next(lambda _: held, now)


def test_no_chunk_is_sent_twice_before_each_was_sent_once() -> None:
    """Whoever wants a chunk that was never sent goes before those who want what was."""
    one = queue(served_at_once=1)
    sent = []
    for _ in range(16):
        for downloader in "abc":
            ask(one, ALL, downloader)
    for _ in range(16):
        request = take(one)
        assert request is not None
        sent.append(request.index)
        one.ended(request.request_id, 0.0, sent_bytes=CHUNK)
    assert sorted(sent) == list(range(16))


def test_who_wants_a_fresh_chunk_goes_first() -> None:
    """Though others came before."""
    one = queue(served_at_once=1)
    ask(one, bits(3), "early")
    first = take(one)
    assert first is not None
    one.ended(first.request_id, 0.0, sent_bytes=CHUNK)
    ask(one, bits(3), "early")
    late = ask(one, bits(3, 4), "late")
    chosen = take(one)
    assert chosen is not None
    assert (chosen.request_id, chosen.index) == (late, 4)


def test_many_requests_win_a_taker_nothing() -> None:
    """Of equals, the one served longest ago is next."""
    one = queue(served_at_once=1)
    for _ in range(4):
        ask(one, ALL, "greedy")
    ask(one, ALL, "modest")
    turns = []
    for _ in range(3):
        request = take(one)
        assert request is not None
        turns.append(request.requester)
        one.ended(request.request_id, 0.0, sent_bytes=CHUNK)
    assert turns == ["greedy", "modest", "greedy"]


def test_few_are_served_at_a_time() -> None:
    """The rest wait until one has ended."""
    one = queue(served_at_once=2)
    for downloader in "abc":
        ask(one, ALL, downloader)
    first, second = take(one), take(one)
    assert first is not None
    assert second is not None
    assert take(one) is None
    one.ended(first.request_id, 0.1, sent_bytes=CHUNK)
    assert take(one, 0.1) is not None


def test_a_slow_taker_delays_nobody() -> None:
    """After its share of time it does not count; the queue says when to look again."""
    one = queue(served_at_once=1, unknown_rate_seconds=1.0)
    ask(one, ALL, "slow")
    ask(one, ALL, "fast")
    assert take(one) is not None
    assert take(one) is None
    assert one.wakeup_at == 1.0
    request = take(one, 1.0)
    assert request is not None
    assert request.requester == "fast"


def test_slow_takers_are_bounded_too() -> None:
    """Each of them holds a thread and a descriptor."""
    one = queue(served_at_once=1, max_served=3)
    for number in range(5):
        ask(one, ALL, f"slow{number}")
    assert [take(one, when) is not None for when in (0.0, 100.0, 200.0, 300.0)] == [True, True, True, False]


def test_who_waited_long_goes_first() -> None:
    """Whatever it wants."""
    one = queue(served_at_once=1, max_wait_seconds=2.0)
    ask(one, bits(0), "first")
    request = take(one)
    assert request is not None
    one.ended(request.request_id, 0.0, sent_bytes=CHUNK)
    old = ask(one, bits(0), "old", 0.0)
    ask(one, ALL, "new", 2.0)
    chosen = take(one, 2.0)
    assert chosen is not None
    assert chosen.request_id == old


def test_a_chunk_that_did_not_go_out_counts_as_not_sent() -> None:
    """The next one gets it."""
    one = queue(served_at_once=1)
    ask(one, bits(5), "a")
    request = take(one)
    assert request is not None
    one.ended(request.request_id, 0.0, sent_bytes=0)
    ask(one, bits(5, 6), "b")
    again = take(one)
    assert again is not None
    one.ended(again.request_id, 0.0, sent_bytes=CHUNK)
    ask(one, bits(5, 6), "c")
    other = take(one)
    assert other is not None
    assert {again.index, other.index} == {5, 6}


@given(st.lists(st.tuples(st.integers(0, 255), st.booleans()), max_size=200), st.integers(1, 255))
def test_bitmaps_count_as_a_counter_does(changes: list[tuple[int, bool]], wanted: int) -> None:
    """Many chunks at once, counted and taken back in any order: what counting one by one says."""
    chunks, counts = ChunkCounts(), [0] * 8
    for some, back in changes:
        if back:
            some &= chunks.above(0)
        (chunks.remove if back else chunks.add)(some)
        for index in range(8):
            counts[index] += (-1 if back else 1) * (some >> index & 1)
    members = [index for index in range(8) if wanted >> index & 1]
    least = min(counts[index] for index in members)
    assert chunks.least(wanted) == (least, bits(*(index for index in members if counts[index] == least)))
    for number in range(4):
        assert chunks.above(number) == bits(*(index for index in range(8) if counts[index] > number))


def ask_from(of: ServingQueue, host: str, downloader: str = "somebody", now: float = 0.0) -> int | None:
    """A request of a host for anything; None when it is turned away."""
    return of.ask(CONTENT, ALL, downloader, CHUNK, now, host=host)


def test_one_host_has_half_of_the_queue_whatever_it_calls_itself() -> None:
    """The rest is for others; what ends makes room."""
    one = queue(max_requests=8)
    flood = [ask_from(one, "flooder", f"alias{number}") for number in range(6)]
    assert [request_id is not None for request_id in flood] == [True] * 4 + [False] * 2
    assert all(ask_from(one, f"other{number}") is not None for number in range(4))
    assert ask_from(one, "late") is None
    assert flood[0] is not None
    one.ended(flood[0], 0.0, sent_bytes=0)
    assert ask_from(one, "flooder") is not None


def test_one_host_has_half_of_the_turns_when_it_takes_nothing() -> None:
    """Turns that are not taken stop to count after a while, and are bounded all the same."""
    one = queue(served_at_once=1, max_served=4, max_requests=64, unknown_rate_seconds=1.0)
    for _ in range(10):
        ask_from(one, "flooder")
    served = [take(one, float(second)) for second in range(10)]
    assert [request is not None for request in served] == [True] * 2 + [False] * 8
    ask_from(one, "other", now=10.0)
    request = take(one, 10.0)
    assert request is not None
    assert request.host == "other"


def test_who_does_not_take_what_it_is_given_comes_after_all_others() -> None:
    """Though it waits for longer than anybody should."""
    one = queue(served_at_once=1, unknown_rate_seconds=1.0, max_wait_seconds=2.0)
    for _ in range(10):
        ask_from(one, "flooder")
    assert take(one, 0.0) is not None
    ask_from(one, "other", now=4.0)
    request = take(one, 5.0)
    assert request is not None
    assert request.host == "other"
    # Nobody else waits: then it is served again.
    request = take(one, 7.0)
    assert request is not None
    assert request.host == "flooder"


def take_growing(of: ServingQueue, held: int, now: float = 0.0) -> ServingRequest | None:
    """As `take`, of a content whose chunks come here first."""
    return of.next(lambda _: held, now, lambda _: True)


def test_of_a_growing_content_each_chunk_leaves_once() -> None:
    """1. The second request for what is to come waits for the next chunk. 2. After a while it gets none, rather than
    one that another downloader has. 3. What is asked for by itself is sent again at once: others do not give it."""
    one = queue(served_at_once=4, max_wait_seconds=2.0)
    ask(one, ALL, "a")
    ask(one, ALL, "b")
    ask(one, ALL, "c")
    first = take_growing(one, bits(0))
    assert first is not None
    assert first.index == 0
    assert take_growing(one, bits(0)) is None
    assert one.wakeup_at == 2.0
    second = take_growing(one, bits(0, 1), now=0.5)
    assert second is not None
    assert second.index == 1
    late = take_growing(one, bits(0, 1), now=2.0)
    assert late is not None
    assert late.index == -1
    ask(one, bits(0), "d", now=2.0)
    again = take_growing(one, bits(0, 1), now=2.0)
    assert again is not None
    assert again.index == 0


def test_what_has_grown_is_served_as_any_other() -> None:
    """Requests that waited for more get what was sent before."""
    one = queue(served_at_once=4)
    for downloader in "ab":
        ask(one, ALL, downloader)
        take_growing(one, bits(0))
    last = take(one, held=bits(0))
    assert last is not None
    assert last.index == 0
