"""One step of a push runs while the next message is received: never two, and its error is raised by the next call."""

import asyncio

import pytest

from minga_core.errors import StoreUnavailableError
from minga_registry.push import Pipeline


async def test_a_step_runs_beside_its_caller_and_the_next_one_waits_for_it() -> None:
    """One at a time, in order."""
    log: list[str] = []
    release = asyncio.Event()

    async def step(name: str) -> None:
        log.append(f"{name} starts")
        await release.wait()
        log.append(f"{name} ends")

    async with Pipeline() as pipeline:
        await pipeline.start(step("1"))
        second = asyncio.create_task(pipeline.start(step("2")))
        await asyncio.sleep(0.01)
        assert log == ["1 starts"]
        release.set()
        await second
        await pipeline.drain()
    assert log == ["1 starts", "1 ends", "2 starts", "2 ends"]


async def test_an_error_of_a_step_is_raised_by_the_next_call_and_leaving_cancels_a_step() -> None:
    """Before anything is committed; the step that would have followed is not begun."""

    async def fails() -> None:
        raise StoreUnavailableError("away")

    async def never_begun() -> None:
        raise AssertionError

    async with Pipeline() as pipeline:
        await pipeline.start(fails())
        with pytest.raises(StoreUnavailableError):
            await pipeline.start(never_begun())
    cancelled = asyncio.Event()

    async def hangs() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async with Pipeline() as pipeline:
        await pipeline.start(hangs())
        await asyncio.sleep(0)
    assert cancelled.is_set()
