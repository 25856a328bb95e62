"""One step of a push goes on while the next message comes: never two, and what it raises is told."""

import asyncio

import pytest

from minga_core.errors import StoreUnavailableError
from minga_registry.push import Ahead


class Step:
    """A step that ends when it is told to."""

    def __init__(self, error: Exception | None = None) -> None:
        self.started = asyncio.Event()
        self.go = asyncio.Event()
        self.was_cancelled = False
        self._error = error

    async def run(self) -> None:
        """The step."""
        self.started.set()
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.was_cancelled = True
            raise
        if self._error:
            raise self._error


async def test_a_step_goes_on_while_its_caller_does_and_the_next_one_waits_for_it() -> None:
    """One at a time."""
    first, second = Step(), Step()
    async with Ahead() as ahead:
        await ahead.start(first.run())
        await first.started.wait()
        starting = asyncio.create_task(ahead.start(second.run()))
        for _ in range(5):
            await asyncio.sleep(0)
        assert not second.started.is_set()
        first.go.set()
        await starting
        await second.started.wait()
        second.go.set()
        await ahead.ended()


@pytest.mark.parametrize("last", [True, False])
async def test_what_a_step_raises_comes_out_of_the_call_after_it(last: bool) -> None:
    """Before anything is committed; the step that would have followed is not begun."""
    failing, next_one = Step(StoreUnavailableError("away")), Step()
    failing.go.set()

    async def push() -> None:
        async with Ahead() as ahead:
            await ahead.start(failing.run())
            await (ahead.ended() if last else ahead.start(next_one.run()))

    with pytest.raises(StoreUnavailableError):
        await push()
    assert not next_one.started.is_set()


async def test_leaving_ends_what_is_under_way() -> None:
    """Nothing is staged any more once the push is given up."""
    step = Step()

    async def push() -> None:
        async with Ahead() as ahead:
            await ahead.start(step.run())
            await step.started.wait()
            raise ValueError("a bad message")

    with pytest.raises(ValueError, match="a bad message"):
        await push()
    assert step.was_cancelled
