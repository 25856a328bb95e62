"""Many items: in batches whose sizes are bounded, and in an order of one's own."""

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")


def by_size(items: Iterable[T], size_of: Callable[[T], int], most: int) -> Iterator[list[T]]:
    """The items in batches whose sizes add up to `most`, or one item alone; their order stays."""
    batch: list[T] = []
    total = 0
    for item in items:
        size = size_of(item)
        if batch and total + size > most:
            yield batch
            batch, total = [], 0
        batch.append(item)
        total += size
    if batch:
        yield batch


def in_turn(items: Sequence[T], at_once: int) -> list[T]:
    """All of them, of which those that are begun at once come in an order of this machine's own.

    For what many machines do at the same time, and the first that asks for a file fetches it for all: each begins with
    another one. The others come in the same order everywhere, so that all want the same files at the same time.
    """
    first = items[:at_once]
    return [*random.sample(first, len(first)), *items[at_once:]]
