"""The registry's client: leases, heartbeats, publications and table pushes as plain values."""

import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from enum import StrEnum
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

import grpc
import grpc.aio
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from minga_core.errors import InternalError, RegistryUnavailableError
from minga_core.ids import Address, parse_address, parse_peer_id
from minga_core.records import (
    FOUND,
    PUBLISH,
    REFUSED,
    TAG_BYTES,
    TRANSFER_ID_BYTES,
    FetchClaim,
    Fetcher,
    FileRow,
    HoldingState,
    Lease,
    PeerInfo,
    Published,
    RowKey,
    TableChange,
    as_of_ns,
)
from minga_engine.wire.messages import nanos_of, parse_http_port, timestamp_of
from minga_peer.daemon.lease_stream import MAX_CALL_TIMEOUT, LeaseStream, call_timeout
from minga_protos.registry.v1 import registry_pb2 as pb
from minga_protos.registry.v1.registry_pb2_grpc import RegistryServiceStub
from minga_runtime.channels import make_balanced_channel
from minga_runtime.grpc_errors import rpc_errors
from minga_runtime.trust.credentials import Credentials, Loaded
from minga_runtime.trust.own_grant import OwnGrant, metadata_of

MIN_LEASE, MAX_LEASE = timedelta(seconds=1), timedelta(days=1)
"""A peer whose lease ends later than it lives would not ask again for as long, whatever becomes of its registry."""
CLAIM_SECONDS = 2.0
"""A claim that takes longer is none: its caller has another way."""
MIN_INTERVAL = timedelta(seconds=0.05)
"""Between heartbeats."""
MIN_PUSH_LIMIT, MAX_PUSH_LIMIT = timedelta(seconds=30), timedelta(days=1)
BATCH_ROWS = 1000
"""Rows, or publications, in a message (contract: registry.proto)."""

if TYPE_CHECKING:
    from minga_protos.registry.v1.registry_pb2_grpc import RegistryServiceAsyncStub

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

    def __init__(
        self,
        address: Address,
        credentials: Credentials | None = None,
        grant: OwnGrant | None = None,
        file_now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """file_now_ns: the clock of the shared files' changes."""
        self.address = address
        self._file_now_ns = file_now_ns
        self._grant = grant
        self._credentials = credentials
        self._link = _Link(address, credentials.current() if credentials else None)
        self._lease = LeaseStream()
        self.publication_key_id = b""
        """Of the key that signs tags, as the registry said last; empty in a network without."""
        self._push_seconds: float | None = None
        """Limit of a push; None before the first lease."""

    async def register(self, info: PeerInfo, token: bytes, asked_ttl: timedelta | None) -> tuple[timedelta, timedelta]:
        """Acquire the lease; the granted time to live and the interval of heartbeats.

        token: the lease token. Raises PeerIdTakenError while another peer has the peer id.
        """
        request = pb.RegisterRequest(
            peer_id=info.peer_id,
            generation=info.generation,
            address=info.address,
            zone=info.zone,
            capacity_bytes=info.capacity_bytes,
            free_bytes=info.free_bytes,
            software_version=info.software_version,
            lease_token=token,
            gateway_url=info.gateway_url,
        )
        if asked_ttl is not None:
            request.asked_ttl.CopyFrom(_duration(asked_ttl))
        async with self._calls() as stub:
            response = await stub.Register(request, timeout=MAX_CALL_TIMEOUT.total_seconds())
        if response.HasField("push_limit"):
            # A little above: the registry's answer says more than ours.
            limit = _bounded(response.push_limit, MIN_PUSH_LIMIT, MAX_PUSH_LIMIT)
            self._push_seconds = (limit + MAX_CALL_TIMEOUT).total_seconds()
        self.publication_key_id = response.publication_key_id
        ttl, interval = _granted(response)
        self._lease.timeout = call_timeout(ttl, interval)
        return ttl, interval

    async def heartbeat(self, lease: Lease, *, table_revision: int, free_bytes: int, active_serves: int) -> Action:
        """Renew the lease."""
        request = pb.HeartbeatRequest(
            peer_id=lease.peer_id,
            generation=lease.generation,
            table_revision=table_revision,
            free_bytes=free_bytes,
            active_serves=active_serves,
            lease_token=lease.token,
        )
        async with self._calls() as stub:
            response = await self._lease.heartbeat(stub, request)
        self.publication_key_id = response.publication_key_id
        return _ACTIONS.get(response.action, Action.OK)

    async def publish(self, lease: Lease, rows: Sequence[FileRow]) -> list[Published]:
        """The times of publication of at most BATCH_ROWS rows, in their order: of rows that have none, or no tag of the
        present key. REFUSED for those that this peer has no right to publish.

        Raises RegisterAgainError, RowRefusedError, UnauthenticatedError. Safe to retry: the later time counts.
        """
        request = pb.PublishRequest(
            peer_id=lease.peer_id,
            generation=lease.generation,
            lease_token=lease.token,
            publications=[_publication(row, self._file_now_ns()) for row in rows],
        )
        async with self._calls() as stub:
            response = await stub.Publish(
                request, timeout=self._lease.timeout.total_seconds(), metadata=self.grant_metadata
            )
        if len(response.published_times) != len(rows):
            raise InternalError(f"the registry has {len(response.published_times)} times for {len(rows)} publications")
        times = [max(REFUSED, nanos_of(time)) for time in response.published_times]
        has_tags = bool(self.publication_key_id or response.tags)
        return list(map(Published, times, _tags(response, times) if has_tags else [b""] * len(times)))

    async def claim_fetch(self, lease: Lease, claim: FetchClaim) -> Fetcher | None:
        """Who fetches a file from its origin after that claim; None after a release. Raises RegisterAgainError,
        PermissionDeniedError, UnauthenticatedError."""
        request = pb.ClaimFetchRequest(
            peer_id=lease.peer_id,
            generation=lease.generation,
            lease_token=lease.token,
            name=claim.name,
            transfer_id=claim.transfer_id,
            http_port=claim.http_port,
            instead_of=claim.instead_of,
            release=claim.release,
        )
        async with self._calls() as stub:
            answer = await stub.ClaimFetch(request, timeout=CLAIM_SECONDS, metadata=self.grant_metadata)
        if claim.release:
            return None
        if len(answer.transfer_id) != TRANSFER_ID_BYTES:
            raise InternalError("the registry does not say which transfer it is")
        port, peer_id = parse_http_port(answer.http_port), parse_peer_id(answer.peer_id)
        return Fetcher(peer_id, parse_address(answer.address), port, answer.transfer_id)

    @property
    def grant_metadata(self) -> tuple[tuple[str, str], ...]:
        """What shows this peer's grant; empty without one, and without TLS."""
        return () if self._link.loaded is None else metadata_of(self._grant)

    async def push_change(self, lease: Lease, change: TableChange) -> int:
        """Push a change; the stored revision. Raises TableRevisionMismatchError, RegisterAgainError."""
        begin = _begin(lease, whole=False, base_revision=change.base_revision, revision=change.revision)
        return await self._push(_steps(begin, change.put, change.remove), change.revision)

    async def push_whole(self, lease: Lease, rows: Sequence[FileRow], revision: int) -> int:
        """Push the whole table; the stored revision. Raises RegisterAgainError."""
        begin = _begin(lease, whole=True, base_revision=0, revision=revision)
        return await self._push(_steps(begin, rows, ()), revision)

    async def _push(self, steps: AsyncIterator[pb.PushTableRequest], revision: int) -> int:
        async with self._calls() as stub:
            response = await stub.PushTable(steps, timeout=self._push_seconds)
        if response.revision != revision:
            # Taken as it comes, it would be pushed again at once, and for ever.
            raise RegistryUnavailableError(f"the registry confirmed revision {response.revision}, not {revision}")
        return revision

    async def leave(self, lease: Lease) -> None:
        """Release the lease."""
        request = pb.LeaveRequest(peer_id=lease.peer_id, generation=lease.generation, lease_token=lease.token)
        async with self._calls() as stub:
            await stub.Leave(request, timeout=MAX_CALL_TIMEOUT.total_seconds())

    async def aclose(self) -> None:
        """Close the channel."""
        self._lease.close()
        await self._link.channel.close()

    @asynccontextmanager
    async def _calls(self) -> AsyncGenerator["RegistryServiceAsyncStub", None]:
        """The stub of a channel with the present credentials, and errors of calls in the block as ours.

        A channel keeps the credentials that it was made with, so it is replaced when they have changed, and closed with
        the last of its calls. A standing stream ends with it, and the next heartbeat opens another.
        """
        loaded = await self._credentials.towards(self.address) if self._credentials else None
        before = self._link
        if loaded is not before.loaded:
            self._link = _Link(self.address, loaded)
            await before.close_unused()
        link = self._link
        link.users += 1
        try:
            with _registry_errors(self.address):
                yield link.stub
        finally:
            link.users -= 1
            if link is not self._link:
                await link.close_unused()


class _Link:
    """A channel, and how many calls use it."""

    def __init__(self, address: Address, loaded: Loaded | None) -> None:
        self.loaded = loaded
        self.channel = make_balanced_channel(address, loaded)
        self.stub = RegistryServiceStub(self.channel)
        self.users = 0

    async def close_unused(self) -> None:
        """Close it unless it has users."""
        if not self.users:
            await self.channel.close()


@contextmanager
def _registry_errors(address: Address) -> Iterator[None]:
    with rpc_errors(f"the registry {address}", RegistryUnavailableError):
        try:
            yield
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNIMPLEMENTED:
                raise
            # Asked again soon: of several registries that are being upgraded another may know it.
            raise RegistryUnavailableError(
                "the registry is older than this peer, and has no such call: upgrade the registries first"
            ) from error


def _begin(lease: Lease, *, whole: bool, base_revision: int, revision: int) -> pb.TableBegin:
    return pb.TableBegin(
        peer_id=lease.peer_id,
        generation=lease.generation,
        whole=whole,
        base_revision=base_revision,
        revision=revision,
        lease_token=lease.token,
    )


async def _steps(
    begin: pb.TableBegin, put: Sequence[FileRow], remove: Sequence[RowKey]
) -> AsyncIterator[pb.PushTableRequest]:
    yield pb.PushTableRequest(begin=begin)
    for rows in _batches(put):
        yield pb.PushTableRequest(rows=_table_rows(rows))
    for keys in _batches(remove):
        removed = [pb.RowKey(name=key.name, content_id=key.content_id.raw) for key in keys]
        yield pb.PushTableRequest(rows=pb.TableRows(remove=removed))
    yield pb.PushTableRequest(end=pb.TableEnd(put_count=len(put), remove_count=len(remove)))


def _batches(items: Sequence[T]) -> Iterator[list[T]]:
    source = iter(items)
    while batch := list(islice(source, BATCH_ROWS)):
        yield batch


def _table_rows(rows: Sequence[FileRow]) -> pb.TableRows:
    """Rows to put. Filled in place: a third of what it takes to make each message by itself."""
    message = pb.TableRows()
    for row in rows:
        made = message.put.add(
            name=row.key.name,
            content_id=row.key.content_id.raw,
            size_bytes=row.size_bytes,
            state=_STATES[row.state],
            executable=row.executable,
        )
        _set_time(made.modified_time, row.modified_ns)
        # Unset: before all others.
        if row.published_ns > PUBLISH:
            _set_time(made.published_time, row.published_ns)
            made.tag = row.tag
    return message


def _set_time(timestamp: Timestamp, nanos: int) -> None:
    timestamp.seconds, timestamp.nanos = divmod(nanos, 10**9)


def _publication(row: FileRow, file_now_ns: int) -> pb.Publication:
    is_published = row.published_ns > PUBLISH
    # What is published already keeps its time where it is known, and gets another tag.
    found_ns = row.published_ns if is_published else row.modified_ns if row.published_ns == FOUND else None
    return pb.Publication(
        name=row.key.name,
        content_id=row.key.content_id.raw,
        found_modified_time=None if found_ns is None else timestamp_of(found_ns),
        changed_ago=_changed_ago(as_of_ns(row.published_ns), file_now_ns),
        ticket=b"" if is_published else row.tag,
        was_published=is_published,
    )


def _tags(response: pb.PublishResponse, times_ns: Sequence[int]) -> list[bytes]:
    """Raises RegistryUnavailableError when not each publication has one: then registries have not the same keys."""
    tags = list(response.tags)
    wanted = [0 if time_ns == REFUSED else TAG_BYTES for time_ns in times_ns]
    if [len(tag) for tag in tags] != wanted:
        raise RegistryUnavailableError(
            "the registry has not a tag for each publication: not all registries have MINGA_PUBLICATION_KEY"
        )
    return tags


def _changed_ago(changed_ns: int | None, file_now_ns: int) -> Duration | None:
    if changed_ns is None:
        return None
    ago = Duration()
    # A file from the future has changed now.
    ago.FromNanoseconds(max(0, file_now_ns - changed_ns))
    return ago


def _granted(response: pb.RegisterResponse) -> tuple[timedelta, timedelta]:
    """The lease and the interval of heartbeats, within what a peer can keep to: no interval is a third of the lease."""
    ttl = _bounded(response.granted_ttl, MIN_LEASE, MAX_LEASE)
    interval = _bounded(response.heartbeat_interval, timedelta(0), ttl / 2)
    return ttl, max(interval, MIN_INTERVAL) if interval else ttl / 3


def _bounded(value: Duration, least: timedelta, most: timedelta) -> timedelta:
    """The duration, or the bound that it exceeds. It may have any number: Duration's own conversion would raise."""
    seconds = value.seconds + value.nanos / 1e9
    return timedelta(seconds=min(max(seconds, least.total_seconds()), most.total_seconds()))


def _duration(value: timedelta) -> Duration:
    duration = Duration()
    duration.FromTimedelta(value)
    return duration
