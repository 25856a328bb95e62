"""Simulated peers with the real announcer, the real table, and the real client but for tables encoded beforehand."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
import grpc.aio

from bench.directory import world
from bench.directory.prepared import PUSH_TABLE, PreparedTables
from bench.directory.worker import serve
from bench.directory.world import World
from minga_core.clock import SystemClock
from minga_core.errors import RegistryUnavailableError
from minga_core.ids import Address, Generation, PeerId
from minga_core.records import FileRow
from minga_peer.daemon.announcer import Announcer
from minga_peer.daemon.registry import PUSH_TIMEOUT, RegistryClient
from minga_peer.share.table import LocalTable
from minga_protos.registry.v1 import registry_pb2 as pb
from minga_runtime.channels import make_channel
from minga_runtime.grpc_errors import error_from_rpc

POLL_SECONDS = 0.05


class PreparedRegistryClient(RegistryClient):
    """Pushes whole tables as they were encoded; notes when it was told to register again."""

    def __init__(self, address: Address, tables: PreparedTables, peer: int) -> None:
        super().__init__(address)
        self._tables = tables
        self._peer = peer
        self._push_channel = make_channel(address)
        self._push_table: Any = self._push_channel.stream_unary(
            PUSH_TABLE, response_deserializer=pb.PushTableResponse.FromString
        )
        self.registered_at: list[float] = []

    async def register(self, *arguments: Any, **named: Any) -> Any:
        """Notes when."""
        self.registered_at.append(time.monotonic())
        return await super().register(*arguments, **named)

    async def push_whole(self, peer_id: PeerId, generation: Generation, rows: Sequence[FileRow], revision: int) -> int:
        """The rows of the made-up world, which `rows` are."""

        async def steps() -> AsyncIterator[bytes]:
            for message in self._tables.messages(self._peer, revision):
                yield message

        try:
            response = await self._push_table(steps(), timeout=PUSH_TIMEOUT.total_seconds())
        except grpc.aio.AioRpcError as error:
            raise error_from_rpc(error, unavailable=RegistryUnavailableError) from error
        pushed: int = response.revision
        return pushed

    async def aclose(self) -> None:
        """Closes both channels."""
        await self._push_channel.close()
        await super().aclose()


_CLIENTS: list[PreparedRegistryClient] = []
_ANNOUNCERS: list[Announcer] = []
_TASKS: list[asyncio.Task[None]] = []


async def start(
    addresses: list[str], names: int, copies: int, peers: int, mine: list[int], spread_seconds: float
) -> dict[str, Any]:
    """Starts those peers of that world, spread over some seconds; returns once all are announced."""
    made = World(names, copies, peers)
    tables = PreparedTables(made)
    tables.prepare(mine)
    rows: dict[int, list[FileRow]] = {}
    clock = SystemClock()
    started = time.monotonic()
    for index, peer in enumerate(mine):
        blocks = made.blocks_of(peer)
        for block in blocks:
            if block not in rows:
                rows[block] = [world.row(number) for number in made.numbers_in(block)]
        info = world.peer_info(peer)
        client = PreparedRegistryClient(Address(addresses[peer % len(addresses)]), tables, peer)
        table = LocalTable(row for block in blocks for row in rows[block])
        announcer = Announcer(
            client,
            table,
            lambda info=info: info,
            lambda: 0,
            clock,
            rng=random.Random(peer),  # type: ignore[misc]
        )
        _CLIENTS.append(client)
        _ANNOUNCERS.append(announcer)
        _TASKS.append(asyncio.create_task(announcer.run()))
        await asyncio.sleep(max(0.0, started + spread_seconds * index / len(mine) - time.monotonic()))
    for announcer in _ANNOUNCERS:
        while announcer.announced_revision < 1:  # noqa: ASYNC110 - its progress is its own
            await asyncio.sleep(POLL_SECONDS)
    return {"seconds": time.monotonic() - started}


async def noticed(since: float) -> list[float]:
    """When each peer that registered again after an instant of the monotonic clock first did, in seconds after it."""
    first = ((at - since for at in client.registered_at if at > since) for client in _CLIENTS)
    return sorted(at for one in first if (at := next(one, None)) is not None)


async def problems() -> list[str]:
    """Peers whose announcer has ended, or cannot tell the registry; some of them."""
    ended = [repr(task.exception()) for task in _TASKS if task.done()]
    return [*ended, *(one.problem for one in _ANNOUNCERS if one.problem)][:5]


if __name__ == "__main__":
    serve({"start": start, "noticed": noticed, "problems": problems})
