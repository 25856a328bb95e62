"""The load of an ordinary day, part by part."""

from dataclasses import dataclass

from bench.directory.model.costs import MEASURED, MICROS, UnitCosts
from bench.directory.model.deployment import DAY, Deployment, Primary
from minga_directory.push import BATCH_ROWS
from minga_directory.store import MAX_CONNECTIONS

PROBE_COMMANDS = 4
"""Of a look-up in steps, whatever the number of holders; and three for each holder (see `holders`)."""


@dataclass(frozen=True, slots=True)
class Steady:
    """Cores are processor seconds a second."""

    registry_cores: float
    """Of all registries."""
    registry_bytes: float
    """Of each."""
    store_cores: float
    hottest_cores: float
    """Of the primary that does most."""
    all_slot_cores: float
    store_bytes: float
    hottest_bytes: float
    locator_cores: float
    lookup_seconds: float
    """Of a locator's processor, for each."""
    peer_bytes: float
    beat_bits: float
    """Between peers and registries, a second."""
    store_bits: float
    """From registries to the store, a second."""
    registry_connections: int
    """To each registry."""
    connects_a_second: float
    """To each registry, since connections are aged."""
    store_clients: int
    """To each primary at most."""


def steady(deployment: Deployment, costs: UnitCosts = MEASURED) -> Steady:
    """The load, with nothing going wrong."""
    it = deployment
    restarts = it.peers * it.restarts_a_week / (7 * DAY)
    changes = it.peers * it.changes_a_day / DAY
    pushed = restarts * it.files + changes
    unlisted = pushed
    connects = it.peers * it.connections / it.registries / it.connection_age_seconds
    registry = (
        it.beats * costs.beat_registry
        + restarts * (costs.register_registry + costs.push_registry)
        + changes * costs.push_registry
        + pushed * row_registry(it, costs)
        + unlisted * costs.unlist_registry
        + connects * it.registries * costs.connection
    )
    all_slot = it.beats * costs.lease_indexed + (restarts + changes) * costs.join_store / 2
    rest = it.beats * (costs.beat_store - costs.lease_indexed) + (restarts + changes) * costs.join_store / 2
    rows = pushed * row_store(it, costs) + unlisted * costs.unlist_store
    lookups = it.peers * it.lookups_a_second
    looked = lookups * lookup_store(it, costs)
    loads = [
        rest * one.peers + rows * row_share(one, costs) + looked * lookup_share(one, it) + all_slot * one.has_all
        for one in it.layout
    ]
    return Steady(
        registry_cores=registry * MICROS,
        registry_bytes=costs.registry_bytes
        + it.peers * it.connections / it.registries * costs.connection_bytes
        + it.peers / it.registries * costs.stream_bytes,
        store_cores=sum(loads) * MICROS,
        hottest_cores=max(loads) * MICROS,
        all_slot_cores=all_slot * MICROS,
        store_bytes=it.entries * costs.entry_bytes(it.copies),
        hottest_bytes=max(primary_bytes(one, it, costs) for one in it.layout),
        locator_cores=lookups * lookup_locator(it, costs) * MICROS,
        lookup_seconds=lookup_locator(it, costs) * MICROS,
        peer_bytes=costs.peer_bytes + it.files * costs.peer_file_bytes,
        beat_bits=it.beats * costs.beat_wire_bytes * 8,
        store_bits=(it.beats * costs.beat_sent_bytes + (pushed + unlisted) * row_sent_bytes(it, costs)) * 8,
        registry_connections=it.peers * it.connections // it.registries,
        connects_a_second=connects,
        store_clients=(it.registries + it.locators) * MAX_CONNECTIONS,
    )


def row_registry(deployment: Deployment, costs: UnitCosts = MEASURED) -> float:
    """Microseconds of a registry for a row that is pushed."""
    return costs.row_registry if deployment.primaries == 1 else costs.row_registry_steps


def row_store(deployment: Deployment, costs: UnitCosts = MEASURED) -> float:
    """The same, of the store."""
    return costs.row_store if deployment.primaries == 1 else costs.row_store_steps


def row_sent_bytes(deployment: Deployment, costs: UnitCosts = MEASURED) -> float:
    """From a registry to the store, for a row that is pushed."""
    return costs.row_sent_bytes if deployment.primaries == 1 else costs.row_sent_steps_bytes


def row_share(primary: Primary, costs: UnitCosts = MEASURED) -> float:
    """Of what a row costs the store: this primary's part."""
    return (
        costs.row_stage_share * primary.peers
        + costs.row_holders_share * primary.contents
        + costs.row_names_share * primary.names
    )


def rows_a_second(deployment: Deployment, costs: UnitCosts = MEASURED, row_micros: float | None = None) -> float:
    """What the store takes: as many as its hottest primary."""
    cost = row_store(deployment, costs) if row_micros is None else row_micros
    return 1 / (cost * MICROS * max(row_share(one, costs) for one in deployment.layout))


def store_wait(deployment: Deployment, costs: UnitCosts = MEASURED) -> float:
    """Seconds for which the hottest primary has work when every place for a push has a batch of rows waiting."""
    rows = deployment.registries * deployment.max_pushes * min(BATCH_ROWS, deployment.files)
    return rows / rows_a_second(deployment, costs)


def primary_bytes(primary: Primary, deployment: Deployment, costs: UnitCosts = MEASURED) -> float:
    """Memory of a primary."""
    it = deployment
    holders = it.entries * costs.entry_holder_bytes + it.contents * costs.content_bytes
    names = it.contents * costs.name_bytes
    return it.entries * costs.entry_table_bytes * primary.peers + holders * primary.contents + names * primary.names


def lookup_commands(deployment: Deployment) -> int:
    """Of a look-up on a Cluster."""
    return PROBE_COMMANDS + 3 * deployment.copies


def lookup_locator(deployment: Deployment, costs: UnitCosts = MEASURED) -> float:
    """Microseconds of a look-up that no cache answers."""
    if deployment.primaries == 1:
        return costs.lookup_locator
    return costs.lookup_http + lookup_commands(deployment) * costs.step_command


def lookup_store(deployment: Deployment, costs: UnitCosts = MEASURED) -> float:
    """The same, of the store."""
    if deployment.primaries == 1:
        return costs.lookup_store
    return lookup_commands(deployment) * costs.step_store


def lookup_share(primary: Primary, deployment: Deployment) -> float:
    """This primary's part of a look-up: one command asks for the name, three for the content, the rest peers."""
    commands = lookup_commands(deployment)
    return (primary.names + 3 * primary.contents + 3 * deployment.copies * primary.peers) / commands
