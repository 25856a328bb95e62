"""Runs in a worker: peers that push their whole tables, cold, as fast as the registries accept them."""

import asyncio
import random
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
from google.protobuf.duration_pb2 import Duration

from bench.directory import fixture
from bench.directory.fixture import Layout
from bench.directory.prepared import PUSH_TABLE, PreparedTables
from minga_protos.registry.v1 import registry_pb2 as pb
from minga_protos.registry.v1.registry_pb2_grpc import RegistryServiceStub
from minga_runtime.channels import make_channel

CALL_SECONDS = 120.0
LEASE_SECONDS = 300
"""The longest that is granted: these peers send no heartbeats."""
CHANNELS = 4
"""To each registry."""
BUSY_SECONDS = 0.2

_PREPARED: dict[int, list[bytes]] = {}


async def prepare(layout: Layout, mine: list[int]) -> None:
    """Encodes the tables of those peers."""
    tables = PreparedTables(layout, mine)
    _PREPARED.update((peer, tables.messages(peer)) for peer in mine)


async def push(addresses: list[str], at_once: int) -> dict[str, float]:
    """Registers and pushes every peer that was prepared, `at_once` at a time; what it took when the last is visible."""
    waiting = list(_PREPARED)
    random.Random(1).shuffle(waiting)
    channels = [make_channel(address) for address in addresses for _ in range(CHANNELS)]
    busy = 0

    async def work(channel: grpc.aio.Channel) -> None:
        nonlocal busy
        while waiting:
            peer = waiting.pop()
            while not await _push(channel, peer):
                busy += 1
                await asyncio.sleep(BUSY_SECONDS)

    started = time.perf_counter()
    try:
        async with asyncio.TaskGroup() as group:
            for number in range(at_once):
                group.create_task(work(channels[number % len(channels)]))
    finally:
        for channel in channels:
            await channel.close()
    return {"seconds": time.perf_counter() - started, "busy": busy}


async def _push(channel: grpc.aio.Channel, peer: int) -> bool:
    """Whether the registry accepted it; it refuses more pushes at a time than it has memory for."""
    info = fixture.peer_info(peer)
    stub: Any = RegistryServiceStub(channel)
    request = pb.RegisterRequest(
        peer_id=info.peer_id, generation=info.generation, address=info.address, zone=info.zone,
        capacity_bytes=info.capacity_bytes, free_bytes=info.free_bytes, software_version=info.software_version,
        asked_ttl=Duration(seconds=LEASE_SECONDS),
    )  # fmt: skip
    await stub.Register(request, timeout=CALL_SECONDS)
    call: Any = channel.stream_unary(PUSH_TABLE, response_deserializer=pb.PushTableResponse.FromString)
    try:
        await call(each_of(_PREPARED[peer]), timeout=CALL_SECONDS)
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
            raise
        return False
    return True


async def each_of(messages: list[bytes]) -> AsyncIterator[bytes]:
    """The messages as a stream."""
    for message in messages:
        yield message
