"""Turns of pushes."""

import asyncio
from contextlib import suppress

import pytest

from minga_registry.push_turns import PushTurns


class Pushes:
    """Pushes that go on until they are let go."""

    def __init__(self, turns: PushTurns) -> None:
        self._turns = turns
        self.going_on: list[str] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.let_go: dict[str, asyncio.Event] = {}

    async def begin(self, *names: str) -> list[str]:
        """Begin pushes; a name's first letter is its caller. Those that go on."""
        for name in names:
            self.let_go[name] = asyncio.Event()
            self.tasks[name] = asyncio.create_task(self._push(name))
        return await self.settled()

    async def end(self, name: str, *, cancelled: bool = False) -> list[str]:
        """End one. Those that go on."""
        self.tasks[name].cancel() if cancelled else self.let_go[name].set()
        with suppress(asyncio.CancelledError):
            await self.tasks[name]
        return await self.settled()

    def outcomes(self) -> set[str]:
        """How they ended."""
        ended = (None if task.cancelled() else task.exception() for task in self.tasks.values())
        return {type(error).__name__ for error in ended}

    async def _push(self, name: str) -> None:
        async with self._turns.turn(name[0]):
            self.going_on.append(name)
            try:
                await self.let_go[name].wait()
            finally:
                self.going_on.remove(name)

    async def settled(self) -> list[str]:
        for _ in range(5):
            await asyncio.sleep(0)
        return sorted(self.going_on)


async def test_a_caller_has_half_of_the_turns_and_others_need_not_wait_for_it() -> None:
    """Turns are given in the order in which pushes came, to those whose caller may have one more."""
    pushes = Pushes(PushTurns(4))
    assert await pushes.begin("a1", "a2", "a3", "a4", "b1") == ["a1", "a2", "b1"]
    assert await pushes.begin("c1", "c2") == ["a1", "a2", "b1", "c1"]
    assert await pushes.end("b1") == ["a1", "a2", "c1", "c2"]
    assert await pushes.end("c2") == ["a1", "a2", "c1"]
    assert await pushes.end("a2") == ["a1", "a3", "c1"]


@pytest.mark.parametrize("too_late", [False, True])
async def test_a_push_that_is_cancelled_leaves_no_turn_behind(too_late: bool) -> None:
    """While it waits, and in the moment in which it got its turn."""
    turns = PushTurns(1)
    pushes = Pushes(turns)
    assert await pushes.begin("a1", "a2", "a3") == ["a1"]
    if too_late:
        pushes.let_go["a1"].set()
        await asyncio.sleep(0)
    assert await pushes.end("a2", cancelled=True) == (["a3"] if too_late else ["a1"])
    await pushes.end("a1")
    assert await pushes.end("a3") == []
    assert await pushes.begin("b1") == ["b1"]
    await pushes.end("b1")


async def test_pushes_that_are_cancelled_together_take_no_turn() -> None:
    """As when a connection with all of them is lost: the one that goes on, and those that wait for it."""
    turns = PushTurns(1)
    pushes = Pushes(turns)
    assert await pushes.begin("a1", "a2", "a3", "b1") == ["a1"]
    for name in ("a1", "a2", "a3"):
        pushes.tasks[name].cancel()
    assert await pushes.settled() == ["b1"]
    assert await pushes.end("b1") == []
    assert await pushes.begin("c1") == ["c1"]
    await pushes.end("c1")
    assert pushes.outcomes() == {"NoneType"}, "none has failed"
