"""What breaks first: for each thing that ends, how many peers it is enough for, and which knob moves it."""

from dataclasses import dataclass, replace

from bench.directory.model.costs import MEASURED, MICROS, UnitCosts
from bench.directory.model.deployment import DAY, Deployment
from bench.directory.model.steady import lookup_locator, row_registry
from minga_directory.reader import MAX_PEERS_IN_STATS
from minga_locator.cache import MAX_AGE_SECONDS
from minga_peer.daemon.announcer import JITTER
from minga_peer.daemon.lease_stream import CALL_TIMEOUT
from minga_peer.daemon.registry import PUSH_TIMEOUT
from minga_runtime.descriptors import MAX_CONNECTIONS

FILES = 10_000
COPIES = 10
AS_INSTALLED = Deployment(1_000, FILES, 2, copies=COPIES)
"""What `deploy/k8s/base` starts: two registries, one Redis."""
BUSY = 0.6
"""Of a core that heartbeats may take: what the autoscaler holds (deploy/k8s/components/autoscaling)."""
BASE_REDIS_BYTES = 384 << 20
"""`maxmemory` in deploy/k8s/base/redis.yaml."""
BASE_REGISTRY_BYTES = 512 << 20
"""The limit in deploy/k8s/base/registry.yaml."""
LARGE_REDIS_BYTES = 64e9
OPEN_FILES = 524_288
"""What systemd lets a process have (its hard limit, which a registry takes); containers have as many or more."""
RESTART_SECONDS = 15.0
"""From a peer's end until its successor is ready. Taken."""
COMEBACK_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Limit:
    """One thing that ends."""

    what: str
    peers: float
    knob: str
    price: str


def limits(costs: UnitCosts = MEASURED) -> list[Limit]:
    """The first to break first, for peers with FILES files each, and everything else as it is installed."""
    it = AS_INSTALLED
    entry = costs.entry_bytes(COPIES)
    connected = costs.connection_bytes + costs.stream_bytes / it.registries
    found = [
        Limit(
            f"Redis' `maxmemory` of the base, {BASE_REDIS_BYTES >> 20} MB",
            BASE_REDIS_BYTES / entry / FILES,
            "`maxmemory` and the pod's limit",
            f"{entry * FILES / 1e6:.1f} MB a peer",
        ),
        Limit(
            f"connections to a registry: {MAX_CONNECTIONS:,}, where the system lets it have {OPEN_FILES:,} open files",
            min(MAX_CONNECTIONS, OPEN_FILES * 3 // 4),
            "a name that leads each peer to one registry or two; `MAX_CONNECTIONS`",
            "uneven load; memory",
        ),
        Limit(
            "a rolling update of peers, one by one, within a day",
            DAY / RESTART_SECONDS,
            "`maxUnavailable` of the DaemonSet",
            "files of single holders are away that many at a time",
        ),
        Limit(
            f"registrations within {CALL_TIMEOUT.total_seconds():g} s after Redis was emptied (`CALL_TIMEOUT`)",
            it.registries * registered_in_time(costs),
            "registry replicas; `MINGA_LEASE_TTL`",
            "cores; later news of deaths",
        ),
        Limit(
            f"memory of a registry, {BASE_REGISTRY_BYTES >> 20} MB: every peer is connected to every registry",
            (BASE_REGISTRY_BYTES - costs.registry_bytes) / connected,
            "the pod's limit; a name that leads each peer to one registry or two",
            f"{connected / 1e3:.0f} kB a peer in each registry",
        ),
        Limit(
            f"`/v1/stats` refreshed every {MAX_AGE_SECONDS:g} s (each starting peer asks) takes a whole locator",
            MAX_AGE_SECONDS / (costs.peer_listed * MICROS),
            "locator replicas; `MAX_AGE_SECONDS`",
            "cores; older answers",
        ),
        Limit(
            f"heartbeats: {BUSY:.0%} of {it.registries} registries' cores",
            it.registries * BUSY / (costs.beat_registry * MICROS) * it.interval_seconds,
            "registry replicas; `MINGA_LEASE_TTL`",
            "cores; the dead are named longer",
        ),
        Limit(
            f"all tables through one Redis within {COMEBACK_SECONDS / 60:g} minutes",
            COMEBACK_SECONDS / (FILES * costs.row_store * MICROS),
            "a Redis Cluster",
            f"look-ups in steps: {_steps_factor(costs):.0f} × the locators",
        ),
        Limit(
            "`/v1/stats` counts no more peers (`MAX_PEERS_IN_STATS`)",
            MAX_PEERS_IN_STATS,
            "the constant",
            f"{costs.peer_listed:.0f} µs of a locator a peer",
        ),
        Limit(
            f"memory of one Redis of {LARGE_REDIS_BYTES / 1e9:g} GB",
            LARGE_REDIS_BYTES / entry / FILES,
            "a Redis Cluster",
            "the same",
        ),
        Limit(
            f"slot `{{all}}`: {BUSY:.0%} of its primary's core",
            BUSY / (costs.lease_indexed * MICROS) * it.interval_seconds,
            "`MINGA_LEASE_TTL`",
            "the dead are named longer",
        ),
    ]
    return sorted(found, key=lambda limit: limit.peers)


def _steps_factor(costs: UnitCosts) -> float:
    """A locator's work for a look-up on a Cluster, beside that on one server."""
    return lookup_locator(replace(AS_INSTALLED, primaries=3), costs) / lookup_locator(AS_INSTALLED, costs)


def registered_in_time(costs: UnitCosts = MEASURED) -> float:
    """Peers for which one registry has registrations and first heartbeats done before the last of them gives up."""
    seconds = AS_INSTALLED.interval_seconds * (1 + JITTER) + CALL_TIMEOUT.total_seconds()
    each = costs.register_registry + costs.beat_registry * seconds / AS_INSTALLED.interval_seconds
    return seconds / (each * MICROS)


def rows_in_time(deployment: Deployment, costs: UnitCosts = MEASURED) -> float:
    """Rows that a table may have so that its push ends before PUSH_TIMEOUT where all places of a registry are taken."""
    return PUSH_TIMEOUT.total_seconds() / (deployment.max_pushes * row_registry(deployment, costs) * MICROS)


def single_holder(deployment: Deployment) -> Deployment:
    """The same files, each on one peer alone."""
    return replace(deployment, copies=1)
