"""Many files in one call: what is fetched while they are still being listed."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

import pytest

from minga.fetching import BATCH_FILES, FetchItem, OnItemProgress, OnProgress, fetch_all
from minga_core.errors import LocatorUnavailableError
from minga_core.names import Name
from minga_engine.progress import DownloadPhase, Progress

DONE = Progress(DownloadPhase.DONE, 1, 1)


class Fetcher:
    """Has everything. Implements Fetcher."""

    def __init__(self) -> None:
        self.together: list[list[FetchItem]] = []
        self.alone: list[FetchItem] = []
        self.began = asyncio.Event()

    async def fetch_small(self, batches: AsyncIterator[list[FetchItem]], on_done: OnItemProgress) -> None:
        async for batch in batches:
            self.together.append(batch)
            self.began.set()
            for item in batch:
                on_done(item, DONE)

    async def fetch(self, item: FetchItem, on_progress: OnProgress) -> Progress:
        self.alone.append(item)
        return DONE


def item(number: int, size_bytes: int = 1) -> FetchItem:
    return FetchItem(Name(f"f{number}"), size_bytes)


async def test_small_files_are_fetched_while_more_are_listed() -> None:
    """The list goes on once the first of them were taken; outcomes are in its order, large files among them."""
    fetcher = Fetcher()

    async def listed() -> AsyncGenerator[FetchItem, None]:
        yield item(-1, 1 << 30)
        for number in range(BATCH_FILES):
            yield item(number)
        await asyncio.wait_for(fetcher.began.wait(), 20)
        yield item(BATCH_FILES)

    ended: list[FetchItem] = []
    outcomes = await fetch_all(fetcher, listed(), lambda one, progress: None, ended.append)
    assert [outcome.item.name for outcome in outcomes] == [f"f{number}" for number in range(-1, BATCH_FILES + 1)]
    assert list(map(len, fetcher.together)) == [BATCH_FILES, 1]
    assert [one.name for one in fetcher.alone] == ["f-1"]
    assert len(ended) == len(outcomes)


async def test_a_single_file_goes_alone() -> None:
    """A call for many has no progress within a file."""
    fetcher = Fetcher()

    async def listed() -> AsyncGenerator[FetchItem, None]:
        yield item(0)

    (outcome,) = await fetch_all(fetcher, listed(), lambda one, progress: None, lambda one: None)
    assert (outcome.result, fetcher.together, fetcher.alone) == (DONE, [], [item(0)])


async def test_a_list_that_breaks_off_ends_it() -> None:
    """Its error is raised, and nothing goes on behind it."""
    fetcher = Fetcher()

    async def listed() -> AsyncGenerator[FetchItem, None]:
        for number in range(BATCH_FILES):
            yield item(number)
        await asyncio.wait_for(fetcher.began.wait(), 20)
        raise LocatorUnavailableError("it is away")

    with pytest.raises(LocatorUnavailableError):
        await fetch_all(fetcher, listed(), lambda one, progress: None, lambda one: None)
    assert len(fetcher.together) == 1
