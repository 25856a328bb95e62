"""Several pieces of work at once, with a limit, where one that fails does not stop the others."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from minga_core.errors import MingaError

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Outcome(Generic[T, R]):
    """How one item ended: with a result, or with an error."""

    item: T
    result: R | None
    error: MingaError | None


async def run_batch(items: Iterable[T], work: Callable[[T], Awaitable[R]], at_once: int) -> list[Outcome[T, R]]:
    """Outcomes in the order of the items. An error that is none of ours ends the batch and is raised."""
    queue = enumerate(items)
    outcomes: dict[int, Outcome[T, R]] = {}
    await all_of([_worker(queue, work, outcomes) for _ in range(at_once)])
    return [outcomes[index] for index in sorted(outcomes)]


async def _worker(
    queue: Iterator[tuple[int, T]], work: Callable[[T], Awaitable[R]], outcomes: dict[int, Outcome[T, R]]
) -> None:
    for index, item in queue:
        try:
            outcomes[index] = Outcome(item, await work(item), None)
        except MingaError as error:
            outcomes[index] = Outcome(item, None, error)


async def all_of(works: Sequence[Awaitable[None]]) -> None:
    """Returns when all are done; the first error ends the others and is raised as itself."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
