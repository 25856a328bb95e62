"""Clients of other peers: one channel for each address, shared by all transfers, and the calls as plain values."""

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Any, cast

import grpc
import grpc.aio

from minga_core.chunks import ChunkSet
from minga_core.errors import (
    BusyError,
    InternalError,
    InvalidArgumentError,
    InvalidManifestError,
    PeerUnavailableError,
)
from minga_core.ids import Address, ContentId
from minga_core.manifest import MAX_MANIFEST_BYTES, Manifest
from minga_core.names import Name
from minga_peer.clients.codec import BufferPool, ChunkBuffer, data_deserializer, data_serializer
from minga_peer.clients.wire import (
    DATA_FIELD_OF_FETCH,
    DATA_FIELD_OF_STORE,
    PEER_SERVICE,
    SourceAddress,
    ranges_from_pb,
    ranges_to_pb,
    sources_from_pb,
    sources_to_pb,
    timestamp_of,
)
from minga_protos.peer.v1 import peer_pb2 as pb
from minga_runtime.channels import make_channel
from minga_runtime.grpc_errors import error_from_rpc

MAX_OPEN_CHANNELS = 64
"""Idle channels above this are closed, least recently used first. Above a swarm's sources and a folder's holders."""


class PeerBusyError(BusyError):
    """The peer has no slot; `sources` are others that it has served."""

    def __init__(self, message: str, *, retry_after: timedelta, sources: tuple[SourceAddress, ...]) -> None:
        super().__init__(message, retry_after=retry_after)
        self.sources = sources


class PeerClient:
    """Calls to one peer. Every method raises PeerUnavailableError when it cannot be reached, and the peer's own error
    when it answers with one. All are safe to retry."""

    def __init__(self, address: Address, channel: grpc.aio.Channel) -> None:
        self.address = address
        self._fetch = channel.unary_stream(
            f"/{PEER_SERVICE}/FetchChunks",
            request_serializer=pb.FetchChunksRequest.SerializeToString,
            response_deserializer=data_deserializer(DATA_FIELD_OF_FETCH, pb.FetchChunksResponse.FromString),
        )
        self._files = channel.unary_stream(
            f"/{PEER_SERVICE}/FetchFiles",
            request_serializer=pb.FetchFilesRequest.SerializeToString,
            response_deserializer=pb.FetchFilesResponse.FromString,
        )
        self._manifest = channel.unary_stream(
            f"/{PEER_SERVICE}/GetManifest",
            request_serializer=pb.GetManifestRequest.SerializeToString,
            response_deserializer=pb.GetManifestResponse.FromString,
        )
        self._watch = channel.unary_stream(
            f"/{PEER_SERVICE}/WatchChunks",
            request_serializer=pb.WatchChunksRequest.SerializeToString,
            response_deserializer=pb.WatchChunksResponse.FromString,
        )
        self._replicate = channel.unary_stream(
            f"/{PEER_SERVICE}/ReplicateFile",
            request_serializer=pb.ReplicateFileRequest.SerializeToString,
            response_deserializer=pb.ReplicateFileResponse.FromString,
        )
        self._store = channel.stream_stream(
            f"/{PEER_SERVICE}/StoreFile",
            request_serializer=data_serializer(DATA_FIELD_OF_STORE),
            response_deserializer=pb.StoreFileResponse.FromString,
        )

    async def get_manifest(self, content_id: ContentId, timeout: timedelta) -> Manifest:
        """The manifest of a content, checked against its id. Raises InvalidManifestError when the peer lies."""
        parts: list[bytes] = []
        size = 0
        call = self._manifest(pb.GetManifestRequest(content_id=content_id.raw), timeout=timeout.total_seconds())
        async with _translated(self.address):
            async for message in call:
                size += len(message.part)
                if size > MAX_MANIFEST_BYTES:
                    call.cancel()
                    raise InvalidManifestError(f"{self.address} sends a manifest that does not end")
                parts.append(message.part)
        return Manifest.decode(b"".join(parts), expected=content_id)

    async def fetch_chunk(
        self,
        content_id: ContentId,
        wanted: ChunkSet,
        *,
        caller: SourceAddress | None,
        on_chosen: Callable[[int], None],
        on_bytes: Callable[[int], None],
        length_of: Callable[[int], int],
        buffers: BufferPool,
    ) -> AsyncGenerator[tuple[int, memoryview], None]:
        """One of the wanted chunks, chosen by the peer: its index and bytes, not verified yet; nothing when the peer
        has none of them. The bytes are good until the generator is closed.

        caller: this peer, when it serves what it has. on_chosen hears the index as soon as the peer says it, on_bytes
        the size of each piece. Raises PeerBusyError, ContentNotHeldError, ContentChangedError, and
        InvalidArgumentError when the peer sends what was not asked for.
        """
        request = pb.FetchChunksRequest(
            content_id=content_id.raw,
            wanted=ranges_to_pb(wanted),
            max_chunks=1,
            peer_id=caller.peer_id if caller else "",
            address=caller.address if caller else "",
        )
        memory = buffers.take(length_of(next(iter(wanted))))
        buffer: ChunkBuffer | None = None
        full = False
        call = self._fetch(request)
        try:
            async with _translated(self.address):
                async for item in call:
                    if isinstance(item, memoryview):
                        full = _require(buffer).add(item)
                        on_bytes(len(item))
                    elif item.HasField("busy"):
                        raise _busy(self.address, item.busy)
                    elif item.HasField("data"):
                        full = _require(buffer).add(memoryview(item.data))
                    else:
                        buffer = _begun(item.chunk, wanted, length_of, buffer, memory)
                        on_chosen(buffer.index)
            if buffer is not None and not full:
                raise PeerUnavailableError(f"{self.address} stopped in the middle of a chunk")
            if buffer is not None:
                yield buffer.index, buffer.data
        finally:
            call.cancel()
            buffers.give_back(memory)

    async def fetch_files(
        self, content_ids: Sequence[ContentId], *, caller: SourceAddress | None
    ) -> AsyncGenerator[list[tuple[int, bytes]], None]:
        """The small contents among those (1 to 256) that the peer has whole, as they come: place in `content_ids` and
        bytes, not verified yet. What has not come at the end is not to be had there. Raises PeerBusyError, and
        InvalidArgumentError when the peer sends what was not asked for."""
        request = pb.FetchFilesRequest(content_ids=[each.raw for each in content_ids])
        request.peer_id = caller.peer_id if caller else ""
        call = self._files(request)
        left = set(range(len(content_ids)))
        try:
            async with _translated(self.address):
                async for message in call:
                    if message.HasField("busy"):
                        raise _busy(self.address, message.busy)
                    yield _asked_for(message, left)
        finally:
            call.cancel()

    async def watch_chunks(self, content_id: ContentId, count: int) -> AsyncGenerator[tuple[ChunkSet, bool], None]:
        """Chunks that the peer has: first all, then each news; each with whether the peer has all of the content."""
        call = self._watch(pb.WatchChunksRequest(content_id=content_id.raw))
        try:
            async with _translated(self.address):
                async for message in call:
                    held = ChunkSet.full(count) if message.complete else ranges_from_pb(count, message.held)
                    yield held, message.complete
        finally:
            call.cancel()

    async def replicate(
        self,
        name: Name,
        content_id: ContentId,
        sources: Iterable[SourceAddress],
        *,
        overwrite: bool,
        published_ns: int,
    ) -> AsyncGenerator[tuple[int, int, bool], None]:
        """Asks the peer to become a holder; gives (held bytes, size or 0, stored) as it goes."""
        request = pb.ReplicateFileRequest(
            name=name,
            content_id=content_id.raw,
            sources=sources_to_pb(sources),
            overwrite=overwrite,
            published_time=timestamp_of(published_ns),
        )
        call = self._replicate(request)
        try:
            async with _translated(self.address):
                async for message in call:
                    yield message.held_bytes, message.size_bytes, message.stored
        finally:
            call.cancel()

    @contextlib.asynccontextmanager
    async def store_file(self) -> AsyncGenerator["StoreCall", None]:
        """An upload; see StoreCall."""
        call = self._store()
        try:
            async with _translated(self.address):
                yield StoreCall(cast(Any, call))
        finally:
            call.cancel()


class StoreCall:
    """The two directions of one upload."""

    def __init__(self, call: Any) -> None:
        self._call = call

    async def send(self, item: pb.StoreFileRequest | memoryview) -> None:
        """Sends a message, or a bare piece of a chunk."""
        await self._call.write(item)

    async def done_sending(self) -> None:
        """Says that nothing more comes."""
        await self._call.done_writing()

    async def receive(self) -> pb.StoreFileResponse | None:
        """The peer's next message; None at the end."""
        message = await self._call.read()
        return None if message is grpc.aio.EOF else message


class PeerConnections:
    """Channels to peers, one for each address, shared by all transfers of the process."""

    def __init__(self, max_open: int = MAX_OPEN_CHANNELS) -> None:
        self._max_open = max_open
        self._open: OrderedDict[Address, _Shared] = OrderedDict()

    @contextlib.asynccontextmanager
    async def to(self, address: Address) -> AsyncGenerator[PeerClient, None]:
        """A client for an address, usable inside the block. Costs nothing when a channel is open already."""
        shared = self._open.get(address)
        if shared is None:
            channel = make_channel(address)
            shared = self._open[address] = _Shared(channel, PeerClient(address, channel))
        self._open.move_to_end(address)
        shared.users += 1
        try:
            yield shared.client
        finally:
            shared.users -= 1
            await self._close_idle()

    async def _close_idle(self) -> None:
        surplus = len(self._open) - self._max_open
        idle = [address for address, shared in self._open.items() if shared.users == 0]
        for address in idle[: max(0, surplus)]:
            await self._open.pop(address).channel.close()

    async def aclose(self) -> None:
        """Closes every channel; calls under way end with PeerUnavailableError."""
        while self._open:
            _, shared = self._open.popitem()
            await shared.channel.close()

    async def __aenter__(self) -> "PeerConnections":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


@dataclass(slots=True)
class _Shared:
    channel: grpc.aio.Channel
    client: PeerClient
    users: int = 0


@contextlib.asynccontextmanager
async def _translated(address: Address) -> AsyncGenerator[None, None]:
    """Turns gRPC's errors into ours."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        found = error_from_rpc(error, unavailable=PeerUnavailableError)
        if isinstance(found, InternalError) and error.code() is grpc.StatusCode.INTERNAL and _is_cores(error):
            # grpc.aio loses the status when the peer ends a call that is being written to.
            found = PeerUnavailableError(f"{address} ended the call while it was sent to")
        raise found from error
    except asyncio.CancelledError:
        # A channel that is closed under a call cancels the call, not us.
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise PeerUnavailableError(f"the connection to {address} was closed") from None
    except grpc.aio.UsageError as error:
        raise PeerUnavailableError(f"the connection to {address} was closed") from error


def _is_cores(error: grpc.aio.AioRpcError) -> bool:
    """Whether the error was made on this side, by gRPC itself: our servers always tell a code of ours."""
    return not any(str(key).startswith("minga-") for key, _ in error.trailing_metadata() or ())


def _require(buffer: ChunkBuffer | None) -> ChunkBuffer:
    if buffer is None:
        raise InvalidArgumentError("data came before any chunk was announced")
    return buffer


def _begun(
    header: pb.ChunkHeader,
    wanted: ChunkSet,
    length_of: Callable[[int], int],
    before: ChunkBuffer | None,
    memory: bytearray,
) -> ChunkBuffer:
    if before is not None:
        raise InvalidArgumentError("more chunks came than were asked for")
    if header.index not in wanted or header.size_bytes != length_of(header.index):
        raise InvalidArgumentError(f"chunk {header.index} of {header.size_bytes} bytes was not asked for")
    # The candidates may differ in size: the last chunk is shorter.
    fits = len(memory) >= header.size_bytes
    return ChunkBuffer(header.index, header.size_bytes, memory if fits else None)


def _asked_for(message: pb.FetchFilesResponse, left: set[int]) -> list[tuple[int, bytes]]:
    """What came, if it was asked for and had not come before; `left` is what has not come yet."""
    for file in message.files:
        if file.index not in left:
            raise InvalidArgumentError(f"content {file.index} was not asked for")
        left.discard(file.index)
    return [(file.index, file.data) for file in message.files]


def _busy(address: Address, busy: pb.Busy) -> PeerBusyError:
    retry_after = timedelta(milliseconds=min(max(busy.retry_after_millis, 10), 60_000))
    return PeerBusyError(f"{address} is busy", retry_after=retry_after, sources=sources_from_pb(busy.sources))
