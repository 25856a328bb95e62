"""Runs in a worker: peers with the real announcer, the real table, and the real client but for encoded tables."""

import asyncio
import random
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import grpc
import grpc.aio

from bench.directory import fixture
from bench.directory.fixture import Layout
from bench.directory.prepared import PUSH_TABLE, PreparedTables
from bench.directory.pushers import CALL_SECONDS, each_of
from bench.product import Announcer, FileTable, RegistryClient
from minga_core.clock import SystemClock
from minga_core.errors import RegistryUnavailableError
from minga_core.ids import Address
from minga_core.records import FileRow, Lease, Published, TableChange
from minga_protos.registry.v1 import registry_pb2 as pb
from minga_runtime.channels import make_channel
from minga_runtime.grpc_errors import error_from_rpc

POLL_SECONDS = 0.05


class RecordingRegistryClient(RegistryClient):
    """Records when it registered."""

    def __init__(self, address: Address) -> None:
        super().__init__(address)
        self.registered_at: list[float] = []

    async def register(self, *arguments: Any, **named: Any) -> Any:
        """Records when."""
        self.registered_at.append(time.monotonic())
        return await super().register(*arguments, **named)


class PreparedRegistryClient(RecordingRegistryClient):
    """Pushes tables as they were encoded; rows that come first, for others request them, are encoded then."""

    def __init__(self, address: Address, tables: PreparedTables, peer: int) -> None:
        super().__init__(address)
        self._tables = tables
        self._peer = peer
        self._push_channel = make_channel(address)

    async def push_whole(self, lease: Lease, rows: Sequence[FileRow], revision: int) -> int:
        """The rows of the layout, which `rows` are, or those of them that are in use."""
        if len(rows) < self._tables.rows_a_peer:
            return await super().push_whole(lease, rows, revision)
        return await self._push_encoded(self._tables.messages(self._peer, revision))

    async def push_change(self, lease: Lease, change: TableChange) -> int:
        """The rows of the layout that are not in use, which those of the change are."""
        messages = self._tables.messages_of_others(self._peer, change.base_revision, change.revision)
        return await self._push_encoded(messages)

    async def _push_encoded(self, messages: list[bytes]) -> int:
        deserializer = pb.PushTableResponse.FromString
        call: Any = self._push_channel.stream_unary(PUSH_TABLE, response_deserializer=deserializer)
        try:
            response = await call(each_of(messages), timeout=CALL_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise error_from_rpc(error, unavailable=RegistryUnavailableError) from error
        return int(response.revision)


_CLIENTS: list[RecordingRegistryClient] = []
_ANNOUNCERS: list[Announcer] = []
_TASKS: list[asyncio.Task[None]] = []


async def start(addresses: list[str], layout: Layout, mine: list[int], spread_seconds: float) -> None:
    """Starts those peers, spread over some seconds; returns once all are announced."""
    tables = PreparedTables(layout, mine)
    rows = {
        block: [(number, fixture.row(number)) for number in layout.numbers_in(block)]
        for block in {block for peer in mine for block in layout.blocks_of(peer)}
    }
    for peer in mine:
        client = PreparedRegistryClient(Address(addresses[peer % len(addresses)]), tables, peer)
        held = [each for block in layout.blocks_of(peer) for each in rows[block]]
        table = FileTable(row for _, row in held)
        for number, row in held:
            if fixture.is_in_use(number):
                table.requested.note(row.key.content_id)
        _announce(client, table, peer)
        await asyncio.sleep(spread_seconds / len(mine))
    await _all_announced()


async def announce(address: str, layout: Layout, mine: list[int], limit_seconds: float) -> dict[str, float]:
    """Starts those peers at once, with nothing prepared; how long until all are announced, at most so many seconds,
    and how often leases were granted."""
    tables = [FileTable(layout.rows_of(peer)) for peer in mine]
    started = time.monotonic()
    for peer, table in zip(mine, tables, strict=True):
        _announce(RecordingRegistryClient(Address(address)), table, peer)
    with suppress(TimeoutError):
        async with asyncio.timeout(limit_seconds):
            await _all_announced()
    seconds = time.monotonic() - started
    announced = sum(announcer.announced_revision > 0 for announcer in _ANNOUNCERS)
    return {"seconds": seconds, "announced": announced, "granted": sum(len(one.registered_at) for one in _CLIENTS)}


def _announce(client: RecordingRegistryClient, table: FileTable, peer: int) -> None:
    info = partial(fixture.peer_info, peer)
    lease = Lease(info().peer_id, info().generation)
    announcer = Announcer(
        client, table, lease, info, lambda: 0, SystemClock(), keep_times=_published, rng=random.Random(peer)
    )
    _CLIENTS.append(client)
    _ANNOUNCERS.append(announcer)
    _TASKS.append(asyncio.create_task(announcer.run()))


async def _all_announced() -> None:
    while any(announcer.announced_revision < 1 for announcer in _ANNOUNCERS):  # noqa: ASYNC110 - their own progress
        await asyncio.sleep(POLL_SECONDS)


async def _published(times: Sequence[tuple[FileRow, Published]]) -> None:
    """Keep nothing: the layout's rows are published."""


async def noticed(since: float) -> list[float]:
    """When each peer first registered again after an instant of the monotonic clock, in seconds after it."""
    first = ((at - since for at in client.registered_at if at > since) for client in _CLIENTS)
    return sorted(at for one in first if (at := next(one, None)) is not None)
