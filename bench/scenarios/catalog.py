"""The scenarios by name, in the order of the table."""

from bench.scenarios.check import Check
from bench.scenarios.departures import SeedLeaves, ThirdKilled
from bench.scenarios.latecomers import Latecomers
from bench.scenarios.one_to_one import OneToOne
from bench.scenarios.scale import Scale
from bench.scenarios.scenario import Scenario
from bench.scenarios.small_files import SmallFiles, TinyFile
from bench.scenarios.source_dies import SourceDies
from bench.scenarios.swarm import MIB, Swarm
from bench.scenarios.uneven import Uneven

RIVALS = ("minga", "aria2", "libtorrent", "nginx")

TABLE: tuple[Scenario, ...] = (
    Swarm("swarm-16", 16, 50.0, 128 * MIB, 1.15, RIVALS, rounds=3),
    Swarm("swarm-8", 8, 100.0, 256 * MIB, 1.15, RIVALS, rounds=3),
    Scale(),
    Uneven(),
    Latecomers(),
    SeedLeaves(),
    ThirdKilled(),
    OneToOne(wanted_rates={"libtorrent": 3.0, "rsync": 1.0, "nginx": 0.8}),
    OneToOne("big-file", 4096 * MIB, 1, ("minga",)),
    SmallFiles(),
    TinyFile(),
    SourceDies(),
)
"""What `all` runs."""

SECURE: tuple[Scenario, ...] = (
    OneToOne(
        "secure-hop", rounds=5, systems=("minga", "minga-tls", "nginx-tls"), judged="minga-tls", wanted_cpu=4.0,
        wanted_rates={"minga": 0.6, "nginx-tls": 0.6},
    ),
    Swarm("secure-swarm-16", 16, 50.0, 128 * MIB, systems=("minga", "minga-tls"), rounds=3),
)  # fmt: skip
"""What `all --secure` runs: networks with certificates beside open ones."""

SCENARIOS: dict[str, Scenario] = {scenario.name: scenario for scenario in (*TABLE, *SECURE, Swarm(), Check())}
