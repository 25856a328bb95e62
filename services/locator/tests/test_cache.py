"""The read cache: at most half a second old, one look-up at a time, bounded."""

import asyncio

import httpx
import pytest

from minga_core.clock import ManualClock
from minga_core.errors import StoreUnavailableError
from minga_locator.cache import ReadCache
from services.locator.tests.support import join, problem_of, row, until
from tests.support.memory_directory import MemoryDirectory


class Source:
    """Look-ups that are counted, and wait while `go` is not set."""

    def __init__(self) -> None:
        self.calls = 0
        self.cancelled = 0
        self.go = asyncio.Event()
        self.go.set()
        self.error: Exception | None = None

    async def look_up(self) -> int:
        """The number of this call."""
        self.calls += 1
        number = self.calls
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.error is not None:
            raise self.error
        return number


@pytest.fixture
def source() -> Source:
    """What the cache stands before."""
    return Source()


async def begun(source: Source, calls: int) -> None:
    """Returns once so many look-ups have begun."""
    await until(lambda: source.calls >= calls)


async def test_an_answer_is_remembered_for_half_a_second(clock: ManualClock, source: Source) -> None:
    """Counted from when its look-up began."""
    cache = ReadCache(clock)
    assert await cache.get("k", source.look_up) == 1
    clock.advance(0.499)
    assert await cache.get("k", source.look_up) == 1
    clock.advance(0.001)
    assert await cache.get("k", source.look_up) == 2
    assert await cache.get("other", source.look_up) == 3


async def test_concurrent_clients_cost_one_lookup(clock: ManualClock, source: Source) -> None:
    """Single flight: all of them get the one answer."""
    cache = ReadCache(clock)
    source.go.clear()
    waiters = [asyncio.create_task(cache.get("k", source.look_up)) for _ in range(50)]
    await begun(source, 1)
    source.go.set()
    assert set(await asyncio.gather(*waiters)) == {1}
    assert source.calls == 1


async def test_a_cancelled_waiter_does_not_end_the_lookup_of_others(clock: ManualClock, source: Source) -> None:
    """Even when it is the one that started it."""
    cache = ReadCache(clock)
    source.go.clear()
    first = asyncio.create_task(cache.get("k", source.look_up))
    await begun(source, 1)
    second = asyncio.create_task(cache.get("k", source.look_up))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    source.go.set()
    assert await second == 1
    assert source.cancelled == 0


async def test_an_error_reaches_all_waiters_and_is_not_kept(clock: ManualClock, source: Source) -> None:
    """The next client gets a new look-up."""
    cache = ReadCache(clock)
    source.go.clear()
    source.error = StoreUnavailableError("away")
    waiters = [asyncio.create_task(cache.get("k", source.look_up)) for _ in range(3)]
    await begun(source, 1)
    source.go.set()
    answers = await asyncio.gather(*waiters, return_exceptions=True)
    assert all(isinstance(answer, StoreUnavailableError) for answer in answers)
    source.error = None
    assert await cache.get("k", source.look_up) == 2


async def test_an_error_without_waiters_is_not_logged(clock: ManualClock, source: Source) -> None:
    """The next client gets a new look-up. (Warnings are errors here.)"""
    cache = ReadCache(clock)
    source.go.clear()
    source.error = StoreUnavailableError("away")
    waiter = asyncio.create_task(cache.get("k", source.look_up))
    await begun(source, 1)
    waiter.cancel()
    await asyncio.gather(waiter, return_exceptions=True)
    source.go.set()
    await until(lambda: len(cache) == 0)
    source.error = None
    assert await cache.get("k", source.look_up) == 2


async def test_it_is_bounded(clock: ManualClock, source: Source) -> None:
    """The oldest goes when there are too many, and all go with time."""
    cache = ReadCache(clock, max_entries=3)
    for key in range(10):
        await cache.get(key, source.look_up)
    assert len(cache) == 3
    assert await cache.get(9, source.look_up) == 10
    assert await cache.get(0, source.look_up) == 11
    clock.advance(1.0)
    await cache.get("new", source.look_up)
    assert len(cache) == 1


async def test_closing_cancels_lookups(clock: ManualClock, source: Source) -> None:
    """Nothing is left running."""
    cache = ReadCache(clock)
    source.go.clear()
    waiter = asyncio.create_task(cache.get("k", source.look_up))
    await begun(source, 1)
    await cache.aclose()
    assert source.cancelled == 1
    with pytest.raises(asyncio.CancelledError):
        await waiter


async def test_look_ups_and_peers_come_from_the_cache(
    api: httpx.AsyncClient, directory: MemoryDirectory, clock: ManualClock
) -> None:
    """A new holder shows within half a second; that nobody has a file is not remembered at all."""
    assert problem_of(await api.get("/v1/files/f")) == (404, "file_not_found")
    assert (await api.get("/v1/peers")).json()["peers"] == []
    await join(directory, "a", row("f"))
    assert (await api.get("/v1/files/f")).json()["versions"][0]["complete_count"] == 1
    assert (await api.get("/v1/peers")).json()["peers"] == []
    await join(directory, "b", row("f"))
    assert (await api.get("/v1/files/f")).json()["versions"][0]["complete_count"] == 1
    clock.advance(0.5)
    assert (await api.get("/v1/files/f")).json()["versions"][0]["complete_count"] == 2
    assert [peer["peer_id"] for peer in (await api.get("/v1/peers")).json()["peers"]] == ["a", "b"]
