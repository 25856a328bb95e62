"""The scenarios by name, in the order of the table."""

from bench.scenarios.check import Check
from bench.scenarios.departures import SeedLeaves, ThirdKilled
from bench.scenarios.hub_fill import HubFill
from bench.scenarios.image_pull import ImagePull
from bench.scenarios.latecomers import Latecomers
from bench.scenarios.one_to_one import OneToOne
from bench.scenarios.origin import LimitedOrigin, Origin
from bench.scenarios.scale import Scale
from bench.scenarios.scenario import Scenario
from bench.scenarios.sharing import ColdShare, Dropped, Held
from bench.scenarios.small_files import SmallFiles, TinyFile
from bench.scenarios.source_dies import SourceDies
from bench.scenarios.swarm import MIB, Swarm
from bench.scenarios.uneven import Uneven
from bench.scenarios.unshaped import Unshaped

RIVALS = ("minga", "aria2", "libtorrent", "nginx")

TABLE: tuple[Scenario, ...] = (
    Swarm("swarm-16", 16, 50.0, 128 * MIB, 1.10, RIVALS, rounds=3),
    Swarm("swarm-8", 8, 100.0, 256 * MIB, 1.08, RIVALS, rounds=3),
    Scale(),
    Uneven(),
    Latecomers(),
    SeedLeaves(),
    ThirdKilled(),
    Unshaped(),
    OneToOne(wanted_rates={"libtorrent": 3.0, "rsync": 1.0, "nginx": 0.8}),
    OneToOne("big-file", 4096 * MIB, 1, ("minga",)),
    OneToOne(
        "doors",
        rounds=5,
        systems=("minga", "minga-open", "minga-gateway", "nginx"),
        judged="minga-open",
        kind="read by a program",
        wanted_rates={"minga": 0.9},
    ),
    SmallFiles(),
    SmallFiles(
        "small-folder",
        20_000,
        per_folder=1000,
        rounds=3,
        wanted_seconds=None,
        wanted_ratio=1.3,
        systems=("minga", "minga-output", "rsync"),
    ),
    TinyFile(),
    Dropped(),
    Held(),
    Held("idle", 10_000, wanted_per_thousand=None, wanted_bytes=60_000_000),
    ColdShare(),
    SourceDies(),
    ImagePull(),
    HubFill(),
    Origin(),
    LimitedOrigin(),
)
"""What `all` runs."""

SECURE: tuple[Scenario, ...] = (
    OneToOne(
        "secure-hop", rounds=5, systems=("minga", "minga-tls", "nginx-tls"), judged="minga-tls", kind="secure",
        wanted_cpu=4.0, wanted_rates={"minga": 0.6, "nginx-tls": 0.6},
    ),
    Swarm("secure-swarm-16", 16, 50.0, 128 * MIB, systems=("minga", "minga-tls"), rounds=3),
)  # fmt: skip
"""What `all --secure` runs: networks with certificates beside open ones."""

SCENARIOS: dict[str, Scenario] = {scenario.name: scenario for scenario in (*TABLE, *SECURE, Swarm(), Check())}
