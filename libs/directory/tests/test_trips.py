"""Calls that wait at the same time share a round trip, and nothing else."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from redis.exceptions import ConnectionError as StoreConnectionError
from redis.exceptions import ResponseError

from minga_directory import trips
from minga_directory.scripts import Script
from minga_directory.trips import MAX_CALLS, MAX_TRIPS, SharedTrips

LIMIT_SECONDS = 5.0


class Pipe:
    """One trip."""

    def __init__(self, store: "Store") -> None:
        self._store = store
        self.asked: list[Any] = []
        self.go = asyncio.Event()
        self.error: Exception | None = None

    async def __aenter__(self) -> "Pipe":
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.asked = []

    def execute_command(self, *words: Any) -> None:
        """Puts a call in."""
        assert words[:4] == ("EVALSHA", "0" * 40, 1, "key")
        self.asked.append(words[-1])

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Echoes what each was asked; what is called `bad` is refused."""
        assert not raise_on_error
        asked = list(self.asked)
        self._store.trips.append(asked)
        self._store.under_way.append(self)
        try:
            await self.go.wait()
        finally:
            self._store.under_way.remove(self)
        if self.error:
            raise self.error
        return [ResponseError("refused") if word == "bad" else f"{word}!" for word in asked]


class Store:
    """What trips go to. Each waits until it is let go."""

    def __init__(self) -> None:
        self.trips: list[list[Any]] = []
        self.under_way: list[Pipe] = []

    def pipeline(self, transaction: bool) -> Pipe:
        """See Redis."""
        assert not transaction
        return Pipe(self)

    async def until(self, trips: int) -> None:
        """So many trips have set off."""
        async with asyncio.timeout(LIMIT_SECONDS):
            while len(self.trips) < trips:  # noqa: ASYNC110 - a step of the loop, no time
                await asyncio.sleep(0)


class Calls:
    """Calls over a store, each a task."""

    def __init__(self) -> None:
        self.store = Store()
        self.trips = SharedTrips(self.store)
        self._script = Script(self.store, "0" * 40)

    def begin(self, *words: Any) -> list["asyncio.Task[Any]"]:
        """Calls that are made at once."""
        return [asyncio.create_task(self.trips.call(self._script, ["key"], [word])) for word in words]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Over a store of its own; patience is long, and others wait for one trip, unless a test says otherwise."""
    monkeypatch.setattr(trips, "PATIENCE_SECONDS", 60.0)
    monkeypatch.setattr(trips, "SWIFT_TRIPS", 1)
    return Calls()


async def answers(tasks: Sequence["asyncio.Task[Any]"]) -> list[Any]:
    """What became of them, errors included."""
    async with asyncio.timeout(LIMIT_SECONDS):
        return await asyncio.gather(*tasks, return_exceptions=True)


async def test_those_who_come_meanwhile_travel_together(calls: Calls) -> None:
    """1. A call that finds nothing on its way sets off at once. 2. Later ones wait. 3. They go together."""
    first = calls.begin("a")
    await calls.store.until(1)
    later = calls.begin("b", "c", "d")
    for _ in range(10):
        await asyncio.sleep(0)
    assert calls.store.trips == [["a"]]
    calls.store.under_way[0].go.set()
    await calls.store.until(2)
    calls.store.under_way[-1].go.set()
    assert await answers([*first, *later]) == ["a!", "b!", "c!", "d!"]
    assert calls.store.trips == [["a"], ["b", "c", "d"]]


async def test_so_many_trips_set_off_at_once(calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store works for one while the answers of the other are made; the next one waits for one of them."""
    monkeypatch.setattr(trips, "SWIFT_TRIPS", 2)
    tasks = calls.begin("a")
    await calls.store.until(1)
    tasks += calls.begin("b")
    await calls.store.until(2)
    tasks += calls.begin("c")
    for _ in range(10):
        await asyncio.sleep(0)
    assert calls.store.trips == [["a"], ["b"]]
    calls.store.under_way[1].go.set()
    await calls.store.until(3)
    for pipe in calls.store.under_way:
        pipe.go.set()
    assert await answers(tasks) == ["a!", "b!", "c!"]


async def test_calls_of_one_turn_of_the_loop_share_the_first_trip(calls: Calls) -> None:
    """They have not waited for anything."""
    tasks = calls.begin("a", "b")
    await calls.store.until(1)
    calls.store.under_way[0].go.set()
    assert await answers(tasks) == ["a!", "b!"]
    assert calls.store.trips == [["a", "b"]]


async def test_a_full_trip_waits_for_no_other_but_trips_are_few(calls: Calls) -> None:
    """No trip carries more than MAX_CALLS, and no more than MAX_TRIPS are on their way."""
    first = calls.begin("first")
    await calls.store.until(1)
    tasks = calls.begin(*range(MAX_CALLS * (MAX_TRIPS + 2)))
    await calls.store.until(MAX_TRIPS)
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(calls.store.trips) == MAX_TRIPS
    assert {len(trip) for trip in calls.store.trips[1:]} == {MAX_CALLS}
    async with asyncio.timeout(LIMIT_SECONDS):
        while not all(task.done() for task in tasks):
            for pipe in calls.store.under_way:
                pipe.go.set()
            await asyncio.sleep(0)
    assert await answers([*first, *tasks]) == ["first!", *(f"{number}!" for number in range(len(tasks)))]


async def test_what_the_store_refuses_is_the_callers_own_error(calls: Calls) -> None:
    """Those who travelled along have their answers."""
    tasks = calls.begin("a", "bad", "c")
    await calls.store.until(1)
    calls.store.under_way[0].go.set()
    a, bad, c = await answers(tasks)
    assert (a, type(bad), c) == ("a!", ResponseError, "c!")


async def test_a_lost_connection_fails_those_who_travelled_over_it_alone(calls: Calls) -> None:
    """Whoever waited for the next trip is answered."""
    lost = calls.begin("a", "b")
    await calls.store.until(1)
    later = calls.begin("c")
    await asyncio.sleep(0)
    calls.store.under_way[0].error = StoreConnectionError("gone")
    calls.store.under_way[0].go.set()
    await calls.store.until(2)
    calls.store.under_way[0].go.set()
    assert [type(answer) for answer in await answers(lost)] == [StoreConnectionError] * 2
    assert await answers(later) == ["c!"]


async def test_nobody_waits_long_for_a_trip_that_hangs(calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another one sets off while it is still on its way, and the one that hangs is answered when it is back."""
    monkeypatch.setattr(trips, "PATIENCE_SECONDS", 0.001)
    hanging = calls.begin("a")
    await calls.store.until(1)
    later = calls.begin("b")
    async with asyncio.timeout(LIMIT_SECONDS):
        while len(calls.store.trips) < 2:  # noqa: ASYNC110 - a timer is what is tested
            await asyncio.sleep(0.001)
    calls.store.under_way[1].go.set()
    assert await answers(later) == ["b!"]
    assert not hanging[0].done()
    # One that is alone again sets off at once.
    again = calls.begin("c")
    await calls.store.until(3)
    calls.store.under_way[1].go.set()
    calls.store.under_way[0].go.set()
    assert await answers([*hanging, *again]) == ["a!", "c!"]


async def test_one_that_is_cancelled_does_not_hinder_the_others(calls: Calls) -> None:
    """Neither while it waits, nor while it travels."""
    first = calls.begin("a", "b")
    await calls.store.until(1)
    later = calls.begin("c", "d")
    await asyncio.sleep(0)
    first[0].cancel()
    later[0].cancel()
    calls.store.under_way[0].go.set()
    await calls.store.until(2)
    assert calls.store.trips[1] == ["d"]
    calls.store.under_way[0].go.set()
    assert [type(answer) for answer in await answers([*first, *later])] == [
        asyncio.CancelledError, str, asyncio.CancelledError, str,
    ]  # fmt: skip


async def test_closing_ends_all_that_wait(calls: Calls) -> None:
    """Nothing is left running, and nobody waits for ever."""
    tasks = calls.begin("a")
    await calls.store.until(1)
    tasks += calls.begin("b")
    await asyncio.sleep(0)
    async with asyncio.timeout(LIMIT_SECONDS):
        await calls.trips.aclose()
    assert [type(answer) for answer in await answers(tasks)] == [StoreConnectionError] * 2
    assert calls.store.under_way == []
