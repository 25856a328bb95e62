"""Runs in a worker: peers that push their whole tables, cold, as fast as the registries accept them."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
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
from minga_runtime.trust.credentials import Credentials, Loaded
from minga_runtime.trust.credentials_folder import CA, CERTIFICATE, KEY
from minga_runtime.trust.members import Role
from minga_runtime.trust.tls_files import TlsFiles

CALL_SECONDS = 120.0
LEASE_SECONDS = 300
"""The longest that is granted: these peers send no heartbeats."""
CHANNELS = 4
"""To each registry."""
BUSY_SECONDS = 0.2

_PREPARED: dict[int, list[bytes]] = {}


async def prepare(layout: Layout, mine: list[int], publication_key: str = "") -> None:
    """Encodes the tables of those peers. publication_key: with its tags."""
    tables = PreparedTables(layout, mine, publication_key)
    _PREPARED.update((peer, tables.messages(peer)) for peer in mine)


async def push(addresses: list[str], at_once: int) -> dict[str, float]:
    """Registers and pushes every peer that was prepared, `at_once` at a time; what it took when the last is visible."""
    waiting = list(_PREPARED)
    random.Random(1).shuffle(waiting)
    channels = [make_channel(address) for address in addresses for _ in range(CHANNELS)]
    return await _push_all([(channels[number % len(channels)], waiting) for number in range(at_once)])


async def push_alone(address: str, folders: Mapping[int, Path]) -> dict[str, float]:
    """The same, all at once, each peer over a connection of its own. folders: credentials by peer; none for an open
    network."""
    return await _push_all([(make_channel(address, _loaded(folders.get(peer))), [peer]) for peer in _PREPARED])


def _loaded(folder: Path | None) -> Loaded | None:
    if folder is None:
        return None
    files = TlsFiles(folder / CERTIFICATE, folder / KEY, folder / CA)
    return Credentials(files, frozenset({Role.PEER})).current()


async def _push_all(works: list[tuple[grpc.aio.Channel, list[int]]]) -> dict[str, float]:
    """Pushes the peers of each list over its channel, one after the other. Channels are closed at the end."""
    busy = 0

    async def work(channel: grpc.aio.Channel, waiting: list[int]) -> None:
        nonlocal busy
        while waiting:
            peer = waiting.pop()
            while not await _push(channel, peer):
                busy += 1
                await asyncio.sleep(BUSY_SECONDS)

    started = time.perf_counter()
    try:
        async with asyncio.TaskGroup() as group:
            for channel, waiting in works:
                group.create_task(work(channel, waiting))
    finally:
        for channel, _ in works:
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
