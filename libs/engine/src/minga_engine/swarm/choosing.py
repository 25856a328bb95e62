"""Which chunks and which sources first."""

import random
from collections.abc import Iterable, Sequence

from minga_engine.swarm.state import Source, members

SAMPLE_CHUNKS = 256
"""Chunks that are compared for one choice; bounds the work however many chunks a content has."""


def sample_bits(bits: int, limit: int, rng: random.Random) -> list[int]:
    """At most `limit` members of a bitmap, ascending from a random start and around."""
    if not bits:
        return []
    start = rng.randrange(bits.bit_length())
    found = [start + index for index in members(bits >> start, limit)]
    return found + members(bits & ((1 << start) - 1), limit - len(found))


def random_member(bits: int, rng: random.Random) -> int:
    """The first member of a bitmap, which has one, from a random start and around."""
    start = rng.randrange(bits.bit_length())
    above = bits >> start
    return start + (above & -above).bit_length() - 1


def random_chunks(available: int, count: int, rng: random.Random) -> list[int]:
    """At most `count` chunks out of a bitmap, at random."""
    found = sample_bits(available, SAMPLE_CHUNKS, rng)
    return rng.sample(found, min(count, len(found)))


def rarest_chunks(available: int, count: int, rarity: Sequence[int], rng: random.Random) -> list[int]:
    """At most `count` chunks out of a bitmap, the rarest first, ties at random.

    rarity: for each chunk, how many partial sources have it.
    """
    found = sample_bits(available, SAMPLE_CHUNKS, rng)
    rng.shuffle(found)
    found.sort(key=rarity.__getitem__)
    return found[:count]


def order_sources(sources: Iterable[Source], rng: random.Random) -> list[Source]:
    """Own zone before others, complete before partial, faster before slower, the rest at random."""
    shuffled = list(sources)
    rng.shuffle(shuffled)
    return sorted(shuffled, key=lambda source: (not source.same_zone, not source.complete, -source.rate.value))
