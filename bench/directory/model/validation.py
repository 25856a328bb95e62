"""The model beside what was measured, where something was. All on two cores with other work beside; so the processor
share that registries really had is given to the model, which otherwise gives each a core.

A run is compared with the costs of the code that ran, which `costs` may have left behind by now.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from bench.directory.model.comeback import emptied
from bench.directory.model.costs import MEASURED, UnitCosts
from bench.directory.model.departures import half_dies
from bench.directory.model.deployment import Deployment
from bench.directory.model.steady import steady, store_wait

LIMIT_SECONDS = 600.0
THEN = replace(
    MEASURED,
    beat_registry=306.0,
    beat_store=20.3,
    lease_indexed=6.7,
    row_registry=32.0,
    row_store=18.5,
    row_registry_steps=32.0,
    row_store_steps=18.5,
    row_stage_share=0.14,
    row_names_share=0.34,
    unlist_registry=24.9,
    unlist_store=11.6,
    register_registry=1_425.0,
    push_registry=1_425.0,
    refused_push=350.0,
    late_call=580.0,
    registry_bytes=66e6,
    connection_bytes=18_500.0,
    stream_bytes=28_500.0,
)
"""What steps cost when the runs below were made: at 4c9423f, the first one at 16ef90c."""


@dataclass(frozen=True, slots=True)
class Check:
    """One figure, measured and modelled."""

    what: str
    unit: str
    measured: float
    model: Callable[[UnitCosts], float]

    def modelled(self) -> float:
        """What the model says."""
        return self.model(THEN)


def _emptied(deployment: Deployment, cores: float) -> Callable[[UnitCosts], float]:
    return lambda costs: emptied(deployment, costs, registry_cores=cores).run(LIMIT_SECONDS).seconds


_FLEET = Deployment(1_000, 200, 2)
_LEAN = Deployment(4_000, 0, 1)
CHECKS = (
    Check("emptied, 1,000 peers × 200 files, registries had 0.61 cores: 99 % back", "s", 24.1, _emptied(_FLEET, 0.61)),
    Check("the same: longest wait for Redis", "ms", 478, lambda costs: 1e3 * store_wait(_FLEET, costs)),
    Check("the first on a busier machine, 0.52 cores", "s", 34.3, _emptied(_FLEET, 0.52)),
    Check("emptied, 4,000 peers without files, one registry: 99 % back", "s", 17.0, _emptied(_LEAN, 1.03)),
    Check(
        "the same: processor time of the registry",
        "s",
        17.4,
        lambda costs: emptied(_LEAN, costs, registry_cores=1.03).run(LIMIT_SECONDS).registry_cpu_seconds,
    ),
    Check(
        "emptied, 8,000 peers without files, one registry: back after 76 s (`late_call` is fitted to this)",
        "%",
        33,
        lambda costs: 100 * emptied(Deployment(8_000, 0, 1), costs, registry_cores=1.0).run(100.0).share_at(76),
    ),
    Check(
        "half of 1,000 peers × 50 files die: all unlisted",
        "s",
        15.5,
        lambda costs: half_dies(Deployment(1_000, 50, 2), costs).seconds,
    ),
    Check(
        "a registry with 4,000 peers: memory",
        "MB",
        275,
        lambda costs: steady(Deployment(4_000, 0, 1), costs).registry_bytes / 1e6,
    ),
    Check(
        "a registry with 10,000 peers: memory",
        "MB",
        556,
        lambda costs: steady(Deployment(10_000, 0, 1), costs).registry_bytes / 1e6,
    ),
)
