"""The registry's client: leases, heartbeats and table pushes as plain values."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from enum import StrEnum
from itertools import islice
from typing import TypeVar

import grpc
import grpc.aio
from google.protobuf.duration_pb2 import Duration

from minga_core.errors import RegistryUnavailableError
from minga_core.ids import Address, Generation, PeerId
from minga_core.records import FileRow, HoldingState, PeerInfo, RowKey, TableChange
from minga_engine.wire.messages import timestamp_of
from minga_peer.daemon.lease_stream import CALL_TIMEOUT, LeaseStream
from minga_protos.registry.v1 import registry_pb2 as pb
from minga_protos.registry.v1.registry_pb2_grpc import RegistryServiceStub
from minga_runtime.channels import make_balanced_channel
from minga_runtime.grpc_errors import error_from_rpc

BATCH_ROWS = 1000
"""Rows in a message (contract: registry.proto)."""

T = TypeVar("T")


class Action(StrEnum):
    """What the registry wants after a heartbeat."""

    OK = "ok"
    REGISTER_AGAIN = "register_again"
    PUSH_TABLE = "push_table"


_ACTIONS = {
    pb.HEARTBEAT_ACTION_OK: Action.OK,
    pb.HEARTBEAT_ACTION_REGISTER_AGAIN: Action.REGISTER_AGAIN,
    pb.HEARTBEAT_ACTION_PUSH_TABLE: Action.PUSH_TABLE,
}
_STATES = {
    HoldingState.COMPLETE: pb.HOLDING_STATE_COMPLETE,
    HoldingState.PARTIAL: pb.HOLDING_STATE_PARTIAL,
}


class RegistryClient:
    """Calls to the registry, all safe to retry.

    Every method raises RegistryUnavailableError within its timeout when the registry or its store is away, and
    LeaseSupersededError when another process owns the peer id.
    """

    def __init__(self, address: Address) -> None:
        self.address = address
        self._channel = make_balanced_channel(address)
        self._stub = RegistryServiceStub(self._channel)
        self._lease = LeaseStream(self._stub)
        self._push_seconds: float | None = None
        """Limit of a push; None before the first lease."""

    async def register(self, info: PeerInfo, asked_ttl: timedelta | None) -> tuple[timedelta, timedelta]:
        """Acquire the lease; the granted time to live and the interval of heartbeats."""
        request = pb.RegisterRequest(
            peer_id=info.peer_id,
            generation=info.generation,
            address=info.address,
            zone=info.zone,
            capacity_bytes=info.capacity_bytes,
            free_bytes=info.free_bytes,
            software_version=info.software_version,
        )
        if asked_ttl is not None:
            request.asked_ttl.CopyFrom(_duration(asked_ttl))
        with _registry_errors():
            response = await self._stub.Register(request, timeout=CALL_TIMEOUT.total_seconds())
        if response.HasField("push_limit"):
            # A little above: the registry's answer says more than ours.
            self._push_seconds = (response.push_limit.ToTimedelta() + CALL_TIMEOUT).total_seconds()
        return response.granted_ttl.ToTimedelta(), response.heartbeat_interval.ToTimedelta()

    async def heartbeat(
        self, peer_id: PeerId, generation: Generation, *, table_revision: int, free_bytes: int, active_serves: int
    ) -> Action:
        """Renew the lease."""
        request = pb.HeartbeatRequest(
            peer_id=peer_id,
            generation=generation,
            table_revision=table_revision,
            free_bytes=free_bytes,
            active_serves=active_serves,
        )
        with _registry_errors():
            response = await self._lease.heartbeat(request)
        return _ACTIONS.get(response.action, Action.OK)

    async def push_change(self, peer_id: PeerId, generation: Generation, change: TableChange) -> int:
        """Push a change; the stored revision. Raises TableRevisionMismatchError, RegisterAgainError."""
        begin = pb.TableBegin(
            peer_id=peer_id,
            generation=generation,
            whole=False,
            base_revision=change.base_revision,
            revision=change.revision,
        )
        return await self._push(_steps(begin, change.put, change.remove))

    async def push_whole(self, peer_id: PeerId, generation: Generation, rows: Sequence[FileRow], revision: int) -> int:
        """Push the whole table; the stored revision. Raises RegisterAgainError."""
        begin = pb.TableBegin(peer_id=peer_id, generation=generation, whole=True, revision=revision)
        return await self._push(_steps(begin, rows, ()))

    async def _push(self, steps: AsyncIterator[pb.PushTableRequest]) -> int:
        with _registry_errors():
            response = await self._stub.PushTable(steps, timeout=self._push_seconds)
        return response.revision

    async def leave(self, peer_id: PeerId, generation: Generation) -> None:
        """Release the lease."""
        request = pb.LeaveRequest(peer_id=peer_id, generation=generation)
        with _registry_errors():
            await self._stub.Leave(request, timeout=CALL_TIMEOUT.total_seconds())

    async def aclose(self) -> None:
        """Close the channel."""
        self._lease.close()
        await self._channel.close()


@contextmanager
def _registry_errors() -> Iterator[None]:
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise error_from_rpc(error, unavailable=RegistryUnavailableError) from error


async def _steps(
    begin: pb.TableBegin, put: Sequence[FileRow], remove: Sequence[RowKey]
) -> AsyncIterator[pb.PushTableRequest]:
    yield pb.PushTableRequest(begin=begin)
    for rows in _batches(put):
        yield pb.PushTableRequest(rows=pb.TableRows(put=[_row(row) for row in rows]))
    for keys in _batches(remove):
        removed = [pb.RowKey(name=key.name, content_id=key.content_id.raw) for key in keys]
        yield pb.PushTableRequest(rows=pb.TableRows(remove=removed))
    yield pb.PushTableRequest(end=pb.TableEnd(put_count=len(put), remove_count=len(remove)))


def _batches(items: Sequence[T]) -> Iterator[list[T]]:
    source = iter(items)
    while batch := list(islice(source, BATCH_ROWS)):
        yield batch


def _row(row: FileRow) -> pb.FileRow:
    return pb.FileRow(
        name=row.key.name,
        content_id=row.key.content_id.raw,
        size_bytes=row.size_bytes,
        modified_time=timestamp_of(row.modified_ns),
        published_time=timestamp_of(row.published_ns),
        state=_STATES[row.state],
    )


def _duration(value: timedelta) -> Duration:
    duration = Duration()
    duration.FromTimedelta(value)
    return duration
