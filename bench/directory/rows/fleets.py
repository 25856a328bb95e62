"""Fleets of simulated peers on a network, in several processes."""

import asyncio

from bench.directory.network import Network
from bench.directory.worker import Worker
from bench.directory.world import World

COPIES = 10
SPREAD_SECONDS = 5.0
ANNOUNCED_SECONDS = 900.0


def fleet_world(peers: int, files: int) -> World:
    """That many peers with that many files each, each content with COPIES holders."""
    return World(peers * files // COPIES, COPIES, peers)


async def start_fleets(network: Network, world: World, parts: list[list[int]]) -> list[Worker]:
    """A process for each part of the peers; returns once all are announced."""
    fleets = [await network.worker(f"fleet-{number + 1}", "fleet") for number in range(len(parts))]
    shape = {"names": world.names, "copies": world.copies, "peers": world.peers}
    await asyncio.gather(
        *(
            fleet.ask(
                "start",
                limit_seconds=ANNOUNCED_SECONDS,
                addresses=network.registries,
                mine=mine,
                spread_seconds=SPREAD_SECONDS,
                **shape,
            )
            for fleet, mine in zip(fleets, parts, strict=True)
        )
    )
    return fleets
