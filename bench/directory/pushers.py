"""Peers that push their whole tables, cold, as fast as the registries take them. Messages are encoded beforehand."""

import asyncio
import random
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
from google.protobuf.duration_pb2 import Duration

from bench.directory import world
from bench.directory.prepared import PUSH_TABLE, PreparedTables
from bench.directory.stats import summary
from bench.directory.worker import serve
from bench.directory.world import World
from minga_protos.registry.v1 import registry_pb2 as pb
from minga_protos.registry.v1.registry_pb2_grpc import RegistryServiceStub
from minga_runtime.channels import make_channel

CALL_SECONDS = 120.0
LEASE_SECONDS = 300
"""The longest that is granted: nobody sends heartbeats here."""
CHANNELS = 4
"""To each registry."""
BUSY_SECONDS = 0.2

_STATE: dict[str, Any] = {}


async def prepare(names: int, copies: int, peers: int, part: int, parts: int) -> dict[str, Any]:
    """Encodes the tables of each `parts`-th peer."""
    tables = PreparedTables(World(names, copies, peers))
    mine = list(range(part, peers, parts))
    tables.prepare(mine)
    _STATE.update(tables=tables, peers=mine)
    return {"message_bytes": sum(map(len, tables.messages(mine[0])))}


async def push(addresses: list[str], at_once: int) -> dict[str, Any]:
    """Registers and pushes every peer that was prepared, `at_once` at a time. Ends when the last one is visible."""
    tables: PreparedTables = _STATE["tables"]
    waiting = list(_STATE["peers"])
    random.Random(1).shuffle(waiting)
    channels = [make_channel(address) for address in addresses for _ in range(CHANNELS)]
    seconds: list[float] = []
    busy = 0

    async def work(channel: grpc.aio.Channel) -> None:
        nonlocal busy
        while waiting:
            peer = waiting.pop()
            messages = tables.messages(peer)
            asked_at = time.perf_counter()
            while True:
                try:
                    await _push(channel, peer, messages)
                    break
                except grpc.aio.AioRpcError as error:
                    if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                        raise
                    busy += 1
                    await asyncio.sleep(BUSY_SECONDS)
            seconds.append(time.perf_counter() - asked_at)

    started = time.perf_counter()
    cpu = time.process_time()
    try:
        async with asyncio.TaskGroup() as group:
            for number in range(at_once):
                group.create_task(work(channels[number % len(channels)]))
    finally:
        for channel in channels:
            await channel.close()
    took = time.perf_counter() - started
    return {
        "seconds": took,
        "push_seconds": summary(seconds),
        "busy_answers": busy,
        "generator_core_share": (time.process_time() - cpu) / took,
    }


async def _push(channel: grpc.aio.Channel, peer: int, messages: list[bytes]) -> None:
    info = world.peer_info(peer)
    stub: Any = RegistryServiceStub(channel)
    asked = pb.RegisterRequest(
        peer_id=info.peer_id, generation=info.generation, address=info.address, zone=info.zone,
        capacity_bytes=info.capacity_bytes, free_bytes=info.free_bytes, software_version=info.software_version,
        asked_ttl=Duration(seconds=LEASE_SECONDS),
    )  # fmt: skip
    await stub.Register(asked, timeout=CALL_SECONDS)

    async def steps() -> AsyncIterator[bytes]:
        for message in messages:
            yield message

    call: Any = channel.stream_unary(PUSH_TABLE, response_deserializer=pb.PushTableResponse.FromString)
    await call(steps(), timeout=CALL_SECONDS)


if __name__ == "__main__":
    serve({"prepare": prepare, "push": push})
