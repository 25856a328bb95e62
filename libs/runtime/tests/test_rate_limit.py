"""The token bucket: rates hold, turns are kept, what is not moved is given back."""

import asyncio
import random

import pytest

from minga_core.clock import ManualClock
from minga_core.errors import InvalidArgumentError
from minga_runtime.rate_limit import BURST_SECONDS, MIN_BYTES_PER_SECOND, Limits, RateLimit

MIB = 1024 * 1024


def manual(bytes_per_second: int | None) -> tuple[RateLimit, ManualClock]:
    """A limit whose sleep turns its clock."""
    clock = ManualClock()

    async def sleep(seconds: float) -> None:
        clock.advance(seconds)
        await asyncio.sleep(0)

    return RateLimit(bytes_per_second, clock, sleep), clock


async def test_no_limit_never_waits() -> None:
    """None is free of charge, whatever is taken."""
    limit, clock = manual(None)
    for _ in range(1000):
        await limit.take(16 * MIB)
    assert clock.monotonic() == 0
    assert limit.reserve(1 << 40, 0.0) == 0
    assert not limit.limited
    assert limit.piece_bytes(512) == 512


def test_a_burst_passes_at_once_and_the_rest_at_the_rate() -> None:
    """A quarter of a second's worth is there at the start."""
    limit, _ = manual(4 * MIB)
    assert limit.reserve(MIB, 0.0) == 0
    assert limit.reserve(MIB, 0.0) == pytest.approx(0.25)
    assert limit.reserve(MIB, 0.0) == pytest.approx(0.5)
    assert limit.reserve(MIB, 0.75) == pytest.approx(0.0)


def test_a_piece_larger_than_the_burst_passes_and_is_paid_for_by_the_next() -> None:
    """Whatever the limit, one piece goes; the rate holds over what follows."""
    limit, _ = manual(64 * 1024)
    assert limit.reserve(MIB, 0.0) == 0
    # 1 MiB at 64 KiB/s is 16 s; the first quarter of a second was there already, the next burst has to come in.
    assert limit.reserve(MIB, 0.0) == pytest.approx(16.0)


def test_idle_time_gathers_no_more_than_a_burst() -> None:
    """An hour of silence does not buy an hour of flood."""
    limit, _ = manual(4 * MIB)
    assert limit.reserve(MIB, 3600.0) == 0
    assert limit.reserve(MIB, 3600.0) == pytest.approx(0.25)


def test_time_that_goes_back_takes_nothing_away() -> None:
    """A reading that is older than the last counts as the last."""
    limit, _ = manual(4 * MIB)
    assert limit.reserve(MIB, 10.0) == 0
    assert limit.reserve(MIB, 5.0) == pytest.approx(0.25)


@pytest.mark.parametrize("seed", range(20))
async def test_the_rate_holds_over_any_stretch_of_time(seed: int) -> None:
    """Whatever pieces are taken when: bytes in T ≤ rate · T + burst + one piece, and it is used to the full."""
    rng = random.Random(seed)
    rate = rng.randrange(MIN_BYTES_PER_SECOND, 50 * MIB)
    limit, clock = manual(rate)
    moved: list[tuple[float, int]] = []
    idle = 0.0
    for _ in range(300):
        if moved and rng.random() < 0.1:
            pause = rng.random() * 0.2
            idle += pause
            clock.advance(pause)
        count = rng.randrange(1, 4 * MIB)
        await limit.take(count)
        moved.append((clock.monotonic(), count))
    for first in range(0, len(moved), 7):
        total = 0
        for at, count in moved[first:]:
            total += count
            assert total <= rate * (at - moved[first][0] + BURST_SECONDS) + count + moved[first][1] + 1
    spent = clock.monotonic() - moved[0][0]
    assert sum(count for _, count in moved) >= rate * (spent - idle) - 1


def test_the_time_in_which_traffic_is_held_up_is_counted_once() -> None:
    """Waits that overlap are one stretch of time, and what has not passed yet does not count."""
    limit, _ = manual(MIB)
    assert limit.held_seconds(0.0) == 0
    limit.reserve(MIB, 0.0)
    limit.reserve(MIB, 0.0)
    limit.reserve(MIB, 0.5)
    assert limit.held_seconds(0.5) == pytest.approx(0.5)
    assert limit.held_seconds(1.5) == pytest.approx(1.5)
    assert limit.held_seconds(60.0) == pytest.approx(2.0)


async def test_turns_are_kept_in_the_order_of_asking() -> None:
    """A small piece does not overtake a large one that came before."""
    limit, _ = manual(MIB)
    order: list[int] = []

    async def take(number: int, count: int) -> None:
        await limit.take(count)
        order.append(number)

    await asyncio.gather(*(take(number, MIB if number % 2 else 1) for number in range(20)))
    assert order == list(range(20))
    assert limit.waiting_count == 0


async def test_a_cancelled_taker_gives_back_what_it_took() -> None:
    """The next in line moves up: it waits as if the other had never asked."""
    clock = ManualClock()
    gate = asyncio.Event()
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        await gate.wait()

    limit = RateLimit(MIB, clock, sleep)
    await limit.take(MIB)
    first = asyncio.create_task(limit.take(4 * MIB))
    second = asyncio.create_task(limit.take(MIB))
    while not waits:  # noqa: ASYNC110 - tasks have to get their turn
        await asyncio.sleep(0)
    assert limit.waiting_count == 2
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    gate.set()
    await second
    assert waits == [pytest.approx(1.0), pytest.approx(1.0)]


async def test_one_that_is_cancelled_in_line_has_taken_nothing() -> None:
    """Only the first in line holds a reservation."""
    clock = ManualClock()
    gate = asyncio.Event()

    async def sleep(seconds: float) -> None:
        await gate.wait()

    limit = RateLimit(MIB, clock, sleep)
    await limit.take(MIB)
    first, second = asyncio.create_task(limit.take(MIB)), asyncio.create_task(limit.take(100 * MIB))
    while limit.waiting_count < 2:  # noqa: ASYNC110 - tasks have to get their turn
        await asyncio.sleep(0)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    gate.set()
    await first
    clock.advance(2.0)
    assert limit.reserve(1, clock.monotonic()) == 0


@pytest.mark.parametrize("rate", [-1, 1, MIN_BYTES_PER_SECOND - 1])
def test_limits_with_which_nothing_would_move_are_refused(rate: int) -> None:
    """Too low is an error that names the least."""
    with pytest.raises(InvalidArgumentError, match="64 KiB/s"):
        RateLimit(rate)


def test_pieces_are_cut_to_the_limit() -> None:
    """At a low limit small pieces keep the traffic even; never below 16 KiB, never above what was asked for."""
    assert RateLimit(100 * MIB).piece_bytes(512 * 1024) == 512 * 1024
    assert RateLimit(MIB).piece_bytes(512 * 1024) == 256 * 1024
    assert RateLimit(MIN_BYTES_PER_SECOND).piece_bytes(512 * 1024) == 16 * 1024
    assert RateLimit(MIN_BYTES_PER_SECOND).piece_bytes(1000) == 1000


def test_zero_in_settings_is_no_limit() -> None:
    """0 for none, each way for itself."""
    limits = Limits.of(0, MIB)
    assert (limits.up.bytes_per_second, limits.down.bytes_per_second) == (None, MIB)
    assert not Limits.of(0, 0).down.limited
