"""Interchangeable choices: which chunks first, which sources first. Chosen by name in the config."""

import random
from collections.abc import Iterator, Sequence
from typing import Protocol

from minga_engine.swarm.sources import Source

SAMPLE_CHUNKS = 256
"""Chunks that are compared for one choice; bounds the work however many chunks a content has."""


class ChunkPolicy(Protocol):
    """Orders the chunks that a source could give."""

    def pick(self, available: int, count: int, rarity: Sequence[int], held_count: int, rng: random.Random) -> list[int]:
        """At most `count` chunks out of the bitmap `available`, the most wanted first.

        rarity: for each chunk, how many partial sources have it. held_count: chunks held already.
        """
        ...


class SourcePolicy(Protocol):
    """Orders sources in reserve."""

    def order(self, sources: Sequence[Source], rng: random.Random) -> list[Source]:
        """The sources, the most wanted first."""
        ...


def sample_bits(bits: int, limit: int, rng: random.Random) -> Iterator[int]:
    """At most `limit` members of a bitmap, ascending from a random start and around."""
    if not bits:
        return
    start = rng.randrange(bits.bit_length())
    low = bits & ((1 << start) - 1)
    for offset, part in ((start, bits >> start), (0, low)):
        while part and limit > 0:
            lowest = (part & -part).bit_length() - 1
            yield offset + lowest
            part &= part - 1
            limit -= 1


class RandomChunks:
    """By lot."""

    def pick(self, available: int, count: int, rarity: Sequence[int], held_count: int, rng: random.Random) -> list[int]:
        """See ChunkPolicy."""
        found = list(sample_bits(available, SAMPLE_CHUNKS, rng))
        return rng.sample(found, min(count, len(found)))


class RarestFirst:
    """The rarest, ties by lot; the first few by lot altogether."""

    def __init__(self, random_first_chunks: int) -> None:
        self._random_first_chunks = random_first_chunks
        self._random = RandomChunks()

    def pick(self, available: int, count: int, rarity: Sequence[int], held_count: int, rng: random.Random) -> list[int]:
        """See ChunkPolicy."""
        if held_count < self._random_first_chunks:
            return self._random.pick(available, count, rarity, held_count, rng)
        found = list(sample_bits(available, SAMPLE_CHUNKS, rng))
        rng.shuffle(found)
        found.sort(key=rarity.__getitem__)
        return found[:count]


class NearCompleteFirst:
    """Own zone before others, complete before partial, faster before slower, the rest by lot."""

    def order(self, sources: Sequence[Source], rng: random.Random) -> list[Source]:
        """See SourcePolicy."""
        shuffled = list(sources)
        rng.shuffle(shuffled)
        return sorted(shuffled, key=lambda source: (not source.same_zone, not source.complete, -source.rate.value))


def chunk_policy(name: str, random_first_chunks: int) -> ChunkPolicy:
    """The policy of that name. Raises KeyError."""
    policies: dict[str, ChunkPolicy] = {"rarest_first": RarestFirst(random_first_chunks), "random": RandomChunks()}
    return policies[name]


def source_policy(name: str) -> SourcePolicy:
    """The policy of that name. Raises KeyError."""
    policies: dict[str, SourcePolicy] = {"near_complete_first": NearCompleteFirst()}
    return policies[name]
