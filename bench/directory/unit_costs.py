"""What single steps of the directory cost, for `model`: processor time, memory and bytes, never wall time.

`python -m bench.directory.unit_costs` prints them in about a minute; what they are is `model`'s to say. Only what the
rows of `make bench-directory` do not tell is here: steps that happen rarely, but to all peers at once.
"""

import asyncio
import json
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import redis.asyncio as redis

from bench.directory import world
from bench.directory.http2 import CallFailedError, call_headers, connect, message
from bench.directory.network import Network, running_network
from bench.directory.usage import cpu_seconds, memory_bytes
from bench.directory.world import World
from minga_core.errors import BusyError
from minga_core.ids import Address
from minga_directory import connect_reader, connect_writer, keys
from minga_directory.directory import Renewal
from minga_directory.index import StepIndex
from minga_directory.lookup import Lookup
from minga_peer.clients.registry import RegistryClient
from minga_protos.registry.v1 import registry_pb2 as pb

TTL = timedelta(minutes=5)
WORLD = World(5_000, 10, 50)
"""Whose tables are pushed and taken away again: 1,000 rows on each of 50 peers."""
INDEXED = 100_000
"""Leases in the index while renewals are measured."""
BEATS = 8
"""Renewals that travel together: what a registry with 8,000 peers gathers in 5 ms."""
LISTED = 2_000
LOOKED_UP = 1_000
CONNECTIONS = 1_000
JOINING = 500
REFUSALS = 200
_MICROS = 1e6
_SERVICE = "/minga.registry.v1.RegistryService/"


class Costs:
    """Figures by name."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.found: dict[str, float] = {}

    @asynccontextmanager
    async def of(self, name: str, count: int) -> AsyncIterator[None]:
        """What the block costs this process and the store: µs and bytes sent for each of `count`."""
        cpu, sent = await self._store_used()
        mine = time.process_time()
        yield
        self.found[f"{name}_caller_micros"] = (time.process_time() - mine) / count * _MICROS
        cpu_after, sent_after = await self._store_used()
        self.found[f"{name}_store_micros"] = (cpu_after - cpu) / count * _MICROS
        self.found[f"{name}_store_bytes"] = (sent_after - sent) / count

    async def _store_used(self) -> tuple[float, int]:
        cpu, stats = await self._store.info("cpu"), await self._store.info("stats")
        return float(cpu["used_cpu_user"]) + float(cpu["used_cpu_sys"]), int(stats["total_net_input_bytes"])


async def of_the_store(network: Network, costs: Costs) -> None:
    """Steps as the registry's and the locator's own classes take them, without gRPC and HTTP."""
    writer, reader = connect_writer(network.store.url), connect_reader(network.store.url)
    try:
        peers = [world.peer_info(number) for number in range(WORLD.peers)]
        others = [world.peer_info(number) for number in range(WORLD.peers, LISTED)]
        await writer.register(peers[0], TTL)
        async with costs.of("register", len(others)):
            for info in others:
                await writer.register(info, TTL)
        tables = {number: list(WORLD.rows_of(number)) for number in range(WORLD.peers)}
        for info in peers:
            await writer.register(info, TTL)
        async with costs.of("row_pushed", WORLD.entries):
            for number, info in enumerate(peers):
                push = writer.push_table(info.peer_id, info.generation, whole=True, base_revision=0, revision=1)
                async with push:
                    await push.put(tables[number])
                    await push.commit()
        async with costs.of("peer_listed", LISTED):
            after = ""
            while True:
                _, after = await reader.list_peers(after=after, limit=1_000)
                if not after:
                    break
        await _lookups(reader, costs)
        half = peers[: len(peers) // 2]
        async with costs.of("row_unlisted", len(half) * WORLD.files_a_peer):
            for info in half:
                await writer.leave(info.peer_id, info.generation)
        ids = [f"node-{number:06}" for number in range(INDEXED)]
        await network.store.client.zadd(keys.LEASES, dict.fromkeys(ids, 9e14))
        await network.store.client.zadd(keys.PEERS, dict.fromkeys(ids, 0))
        renewals = [Renewal(info.peer_id, info.generation, TTL, 1, 1, 0) for info in others]
        batches = [renewals[start : start + BEATS] for start in range(0, len(renewals), BEATS)]
        async with costs.of("renewed", len(renewals)):
            for batch in batches:
                await writer.renew(batch)
        async with costs.of("lease_indexed", len(renewals)):
            for batch in batches:
                await writer._leases.update([(each.peer_id, 300_000) for each in batch])
    finally:
        await writer.aclose()
        await reader.aclose()


async def _lookups(reader: Any, costs: Costs) -> None:
    """Of names with ten holders: in one script, and in steps as on a Cluster (without its detours)."""
    names = [world.name(number) for number in range(LOOKED_UP)]
    for way in ("at_once", "in_steps"):
        async with costs.of(f"lookup_{way}", len(names)):
            for name in names:
                await reader.find(name)
        reader._lookup = Lookup(reader._store, reader._rng)


async def of_the_parts_of_a_row(network: Network, costs: Costs) -> None:
    """A row pushed in steps, as on a Cluster (without its detours): staged alone, with its holder, and all of it."""
    writer = connect_writer(network.store.url)

    try:
        steps = {"staged": ("_add_holders", "_add_names"), "staged_and_held": ("_add_names",), "in_steps": ()}
        for what, left_out in steps.items():
            writer._index = StepIndex(writer._store, writer._garbage)
            for step in left_out:
                setattr(writer._index, step, _nothing)
            await network.store.empty()
            for number in range(WORLD.peers):
                await writer.register(world.peer_info(number), TTL)
            async with costs.of(f"row_{what}", WORLD.entries):
                for number in range(WORLD.peers):
                    info, rows = world.peer_info(number), list(WORLD.rows_of(number))
                    push = writer.push_table(info.peer_id, info.generation, whole=True, base_revision=0, revision=1)
                    async with push:
                        await push.put(rows)
                        await push.commit()
    finally:
        await writer.aclose()


async def _nothing(*arguments: Any) -> list[int]:
    return [1]


async def of_the_registry(network: Network, found: dict[str, float]) -> None:
    """What connections, joining peers, and pushes that are sent away cost a registry process."""
    await network.store.empty()
    address = await network.start_registry()
    pid = network.pids["registry-1"]
    host, _, port = address.rpartition(":")
    cpu, memory = cpu_seconds(pid), memory_bytes(pid)
    connections = [await connect(host, int(port)) for _ in range(CONNECTIONS)]
    await asyncio.sleep(1.0)
    found["connection_micros"] = (cpu_seconds(pid) - cpu) / CONNECTIONS * _MICROS
    found["connection_bytes"] = (memory_bytes(pid) - memory) / CONNECTIONS
    for connection in connections:
        connection.close()
    await asyncio.sleep(1.0)
    joining = await network.worker("beats", "beats")
    cpu, memory = cpu_seconds(pid), memory_bytes(pid)
    await joining.ask("start", addresses=[address], mode="stream", first=0, count=JOINING, at_once=8)
    found["join_micros"] = (cpu_seconds(pid) - cpu) / JOINING * _MICROS
    await _refusals(network, found)


async def _refusals(network: Network, found: dict[str, float]) -> None:
    address = await network.start_registry("--max-pushes", "1")
    pid = network.pids["registry-2"]
    host, _, port = address.rpartition(":")
    info = world.peer_info(1)
    # Has the one place there is, and says nothing more.
    holding = await connect(host, int(port))
    begin = pb.PushTableRequest(begin=pb.TableBegin(peer_id=info.peer_id, generation=info.generation, whole=True))
    answer = holding.open(call_headers(f"{_SERVICE}PushTable", address)).send(message(begin.SerializeToString()))
    await asyncio.sleep(0.5)
    rows = [row for number in range(2) for row in WORLD.rows_of(number)]
    client = RegistryClient(Address(address))
    refused = 0
    try:
        cpu = cpu_seconds(pid)
        for _ in range(REFUSALS):
            try:
                await client.push_whole(info.peer_id, info.generation, rows, 1)
            except BusyError:
                refused += 1
        found["refused_push_micros"] = (cpu_seconds(pid) - cpu) / REFUSALS * _MICROS
    finally:
        await client.aclose()
        holding.close()
        with suppress(CallFailedError):
            await answer
    if refused != REFUSALS:
        raise RuntimeError(f"{REFUSALS - refused} of {REFUSALS} pushes were not refused")


async def measure(folder: Path) -> dict[str, float]:
    """All of it, by name."""
    async with running_network(folder / "n") as network:
        await network.start_store()
        client: Any = redis.Redis(host="127.0.0.1", port=network.store.port)
        costs = Costs(client)
        try:
            await of_the_store(network, costs)
            await of_the_parts_of_a_row(network, costs)
            await of_the_registry(network, costs.found)
        finally:
            await client.aclose()
    return {name: round(value, 1) for name, value in costs.found.items()}


def main() -> None:
    """Prints what was found."""
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(asyncio.run(measure(Path(folder))), indent=1))


if __name__ == "__main__":
    main()
