"""A registry dies with its standing streams; half of all peers die at one instant. Simulated in steps."""

from dataclasses import dataclass

from bench.directory.model.comeback import next_heartbeat
from bench.directory.model.costs import MEASURED, MICROS, UnitCosts
from bench.directory.model.deployment import Deployment
from bench.directory.model.steady import rows_a_second, steady
from minga_directory.garbage import BATCH_ROWS
from minga_registry.streams import JITTER

MOST = 0.9
"""Of its share of the streams: then a new registry counts as one of them."""
ROUND_TRIP_SECONDS = 0.001
"""To the store and back. Taken, not measured: two machines of one network, and a store that has other things to do."""
TRIPS = 5
"""For each batch of rows that are unlisted (`Unlisting._take_away`)."""
STEP = 0.2


@dataclass(frozen=True, slots=True)
class RegistryDeath:
    """What the others had to carry."""

    before: float
    """Of a core: heartbeats, of each registry before."""
    peak: float
    """The same, of each of the others, at its most; opening streams included."""
    opened_a_second: float
    """Streams, at the most, by all of the others together."""
    shared_seconds: float
    """From the new one's start until it has MOST of its share."""


def registry_dies(deployment: Deployment, costs: UnitCosts = MEASURED, *, away_seconds: int = 30) -> RegistryDeath:
    """One dies at second 0, another takes its place `away_seconds` later. By seconds, in counts of streams."""
    it = deployment
    share = it.peers / it.registries
    fleet = _Streams(it.connection_age_seconds, it.peers - share)
    newcomer = _Streams(it.connection_age_seconds, 0.0)
    beaten = next_heartbeat(it.interval_seconds)
    beat_cores = costs.beat_registry / it.interval_seconds * MICROS
    peak, most_opened, shared = 0.0, 0.0, float("inf")
    for second in range(int(6 * it.connection_age_seconds)):
        orphans = share * (beaten(second + 1.0) - beaten(float(second)))
        opened = orphans + fleet.ended(second) + newcomer.ended(second)
        to_newcomer = opened / it.registries if second >= away_seconds else 0.0
        newcomer.open(second, to_newcomer)
        fleet.open(second, opened - to_newcomer)
        others = it.registries - 1
        load = fleet.count * beat_cores + (opened - to_newcomer) * costs.stream_opened * MICROS
        peak, most_opened = max(peak, load / others), max(most_opened, orphans)
        if newcomer.count >= MOST * share:
            shared = second - away_seconds
            break
    return RegistryDeath(share * beat_cores, peak, most_opened, shared)


class _Streams:
    """Streams of many registries: how many stand, and when they end."""

    def __init__(self, life: float, count: float) -> None:
        self._least, self._most = int(life * (1 - JITTER)), int(life * (1 + JITTER))
        self._ends: dict[int, float] = {}
        self.count = count
        # As if they had been opened at any time: what is left of lives that are even between least and most.
        reach = next_heartbeat(life)
        for second in range(self._most):
            self._ends[second] = count * (reach(second + 1.0) - reach(float(second)))

    def ended(self, second: int) -> float:
        """Streams that end in this second."""
        ended = self._ends.pop(second, 0.0)
        self.count -= ended
        return ended

    def open(self, second: int, count: float) -> None:
        """More of them."""
        self.count += count
        lives = range(self._least, self._most)
        for life in lives if count else ():
            self._ends[second + life] = self._ends.get(second + life, 0.0) + count / len(lives)


@dataclass(frozen=True, slots=True)
class Reaped:
    """What the dead left, and how long it stayed."""

    rows: float
    rows_a_second: float
    """At the most."""
    unnamed_seconds: float
    """Until no lease of the dead lives: from then on no answer names them."""
    seconds: float
    """Until nothing of theirs is left."""


def half_dies(deployment: Deployment, costs: UnitCosts = MEASURED, *, share: float = 0.5) -> Reaped:
    """That share of the peers dies at second 0, each after its last heartbeat. Registries look every `reap_seconds`,
    one after the other in that time, and work until nothing is left."""
    it = deployment
    rows = it.entries * share
    beaten = next_heartbeat(it.interval_seconds)
    rate = reaped_a_second(it, costs, busy=steady(it, costs).registry_cores / it.registries)
    looks = [it.reap_seconds * (number + 1) / it.registries for number in range(it.registries)]
    left, reaped, now, most = rows, 0.0, 0.0, 0.0
    while left > 1e-6 * rows:
        ended = rows * (1 - beaten(max(0.0, it.lease_seconds - now)))
        working = sum(look <= now for look in looks)
        done = min(ended - reaped, rate * working / it.registries * STEP)
        looks = [now + it.reap_seconds if look <= now and done >= ended - reaped else look for look in looks]
        reaped, left, most = reaped + done, left - done, max(most, done / STEP)
        now += STEP
    return Reaped(rows, most, it.lease_seconds, now)


def reaped_a_second(deployment: Deployment, costs: UnitCosts = MEASURED, *, busy: float = 0.0) -> float:
    """Rows that all registries unlist together: each one batch after the other, the store as fast as its hottest
    primary. busy: share of each registry's core that other work has."""
    batch = BATCH_ROWS * costs.unlist_registry * MICROS / max(0.05, 1 - busy)
    batch += TRIPS * ROUND_TRIP_SECONDS + BATCH_ROWS * costs.unlist_store * MICROS
    return min(
        deployment.registries * BATCH_ROWS / batch, rows_a_second(deployment, costs, row_micros=costs.unlist_store)
    )
