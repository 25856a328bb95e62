"""Which chunks and which sources first."""

import random
from collections.abc import Iterable

from minga_engine.swarm.state import Source, SwarmState, members


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


def rarest_chunks(available: int, count: int, state: SwarmState, rng: random.Random) -> list[int]:
    """At most `count` chunks out of a bitmap, those that the fewest sources have first, else at random."""
    found: list[int] = []
    while available and len(found) < count:
        rarest = state.rarest(available)
        found += sample_bits(rarest, count - len(found), rng)
        available &= ~rarest
    return found


def order_sources(sources: Iterable[Source], rng: random.Random) -> list[Source]:
    """Own zone before others, complete before partial, faster before slower, the rest at random."""
    shuffled = list(sources)
    rng.shuffle(shuffled)
    return sorted(shuffled, key=lambda source: (not source.same_zone, not source.complete, -source.rate.value))
