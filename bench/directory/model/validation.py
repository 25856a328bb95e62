"""The model beside what was measured, where something was. All on two cores with other work beside; so the processor
share that registries really had is given to the model, which otherwise gives each a core."""

from collections.abc import Callable
from dataclasses import dataclass

from bench.directory.model.comeback import emptied
from bench.directory.model.costs import MEASURED, UnitCosts
from bench.directory.model.departures import half_dies
from bench.directory.model.deployment import Deployment
from bench.directory.model.steady import steady, store_wait

LIMIT_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Check:
    """One figure, measured and modelled."""

    what: str
    unit: str
    measured: float
    model: Callable[[UnitCosts], float]

    def modelled(self, costs: UnitCosts = MEASURED) -> float:
        """What the model says."""
        return self.model(costs)


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
