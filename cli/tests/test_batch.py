"""Several at once, with a limit."""

import asyncio

import pytest

from minga_cli.batch import run_batch
from minga_core.errors import NoSourcesError


async def test_outcomes_come_in_the_order_of_the_items_and_never_too_many_at_once() -> None:
    """Eight items, three at once, each finishing out of order."""
    running, most = 0, 0

    async def work(item: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        for _ in range(8 - item):
            await asyncio.sleep(0)
        running -= 1
        return item * 10

    outcomes = await run_batch(range(8), work, 3)
    assert [outcome.result for outcome in outcomes] == [number * 10 for number in range(8)]
    assert most == 3


async def test_a_known_error_is_an_outcome() -> None:
    """The others go on."""

    async def work(item: int) -> int:
        if item == 1:
            raise NoSourcesError("none")
        return item

    outcomes = await run_batch(range(3), work, 2)
    assert [type(outcome.error) for outcome in outcomes] == [type(None), NoSourcesError, type(None)]


async def test_a_bug_ends_the_batch_and_leaves_no_task() -> None:
    """Cancelled work has ended by the time the bug is raised."""
    stopped = asyncio.Event()

    async def work(item: int) -> None:
        if item == 0:
            await asyncio.sleep(0)
            raise ZeroDivisionError
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    with pytest.raises(ZeroDivisionError):
        await run_batch(range(2), work, 2)
    assert stopped.is_set()
    assert len(asyncio.all_tasks()) == 1
