"""The scenarios, in the table's order."""

from collections.abc import Iterator
from typing import Protocol

from bench.directory import load
from bench.directory.scenarios.added import Added
from bench.directory.scenarios.announced import Announced
from bench.directory.scenarios.browsing import Catalogue
from bench.directory.scenarios.deaths import Deaths
from bench.directory.scenarios.emptied import Emptied
from bench.directory.scenarios.heartbeats import Heartbeats
from bench.directory.scenarios.large_tables import LargeTables
from bench.directory.scenarios.rates import Rates
from bench.directory.scenarios.secure import Joins, SecureLookups, SecurePushes
from bench.directory.scenarios.tables import Tables
from bench.directory.session import Session
from bench.results import Outcome


class Scenario(Protocol):
    """One line of the command, some lines of the table."""

    name: str

    async def run(self, session: Session) -> Outcome:
        """Measures. Raises LabError, MingaError, RedisError or OSError."""
        ...


def _zipf(names: int, part: int, parts: int) -> Iterator[str]:
    return load.zipf(names)


def _placements(names: int, part: int, parts: int) -> Iterator[str]:
    return load.placements(names)


TABLE: tuple[Scenario, ...] = (
    Rates("lookups", "look-ups", "Zipf popularity (exponent 1)", 0.6, _zipf, fixed_rate=1_000),
    Rates("distinct", "look-ups, each name once", "no name twice", 0.3, load.distinct),
    Rates("placements", "placements", "3 replicas, half of the names are new", 0.5, _placements),
    Heartbeats(),
    Tables(),
    Announced(),
    Added(),
    Catalogue(),
    Emptied(),
    Deaths(),
    LargeTables(),
)
SECURE: tuple[Scenario, ...] = (SecureLookups(), SecurePushes(), Joins())
"""What `--secure` runs: a secure network beside an open one."""
SCENARIOS = {scenario.name: scenario for scenario in (*TABLE, *SECURE)}
