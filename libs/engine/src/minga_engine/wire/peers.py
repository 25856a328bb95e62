"""Clients of other peers: one channel for each address, shared by all transfers, and the calls as plain values."""

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Any, Protocol, cast

import grpc
import grpc.aio

from minga_core.chunks import ChunkSet
from minga_core.errors import (
    BusyError,
    InternalError,
    InvalidArgumentError,
    InvalidManifestError,
    MingaError,
    PeerUnavailableError,
)
from minga_core.ids import Address, ContentId
from minga_core.manifest import MAX_MANIFEST_BYTES, Manifest
from minga_core.names import Name
from minga_engine.wire.http_client import BulkPeer, BulkUnreachableError, Expected
from minga_engine.wire.http_format import BulkAnswer, BulkRefusal, BulkRequest, ranges_of
from minga_engine.wire.messages import (
    DATA_FIELD_OF_FETCH,
    DATA_FIELD_OF_STORE,
    PEER_SERVICE,
    SourceAddress,
    parse_bulk_port,
    ranges_from_pb,
    ranges_to_pb,
    sources_from_pb,
    sources_to_pb,
    timestamp_of,
)
from minga_engine.wire.payload import MAX_PIECE_BYTES, BufferPool, ChunkBuffer, data_deserializer, data_serializer
from minga_protos.peer.v1 import peer_pb2 as pb
from minga_runtime import tracing
from minga_runtime.channels import make_channel
from minga_runtime.grpc_errors import error_from_rpc
from minga_runtime.rate_limit import RateLimit

MAX_BULK_LOSSES = 3
"""After so many in a row the bulk port counts as one that cannot be reached."""
BULK_BAR_SECONDS = 60.0
"""For so long a bulk port that could not be reached is not tried again."""
MAX_OPEN_CHANNELS = 64
"""Idle channels above this are closed, least recently used first. Above a swarm's sources and a folder's holders."""


class PeerBusyError(BusyError):
    """The peer has no slot; `sources` are others that it has served."""

    def __init__(self, message: str, *, retry_after: timedelta, sources: tuple[SourceAddress, ...]) -> None:
        super().__init__(message, retry_after=retry_after)
        self.sources = sources


class ChunkListener(Protocol):
    """Hears of a chunk while it comes."""

    def named(self, sources: tuple[SourceAddress, ...]) -> None:
        """The peer names others that take the same content."""
        ...

    def chosen(self, index: int) -> None:
        """The peer says which chunk comes."""
        ...

    def received(self, count: int) -> None:
        """So many bytes came."""
        ...


@dataclass(frozen=True, slots=True)
class FetchedChunk:
    """A chunk that came, not verified yet."""

    index: int
    data: memoryview
    path: str
    """How it came: `bulk` or `grpc`."""


class PeerClient:
    """Calls to one peer. Every method raises PeerUnavailableError when it cannot be reached, and the peer's own error
    when it answers with one. All are safe to retry."""

    def __init__(
        self, address: Address, channel: grpc.aio.Channel, down: RateLimit | None = None, *, bulk: bool = True
    ) -> None:
        self.address = address
        self._down = down or RateLimit(None)
        self._accepts_bulk = bulk
        self._bulk: BulkPeer | None = None
        self._bulk_barred_until = 0.0
        self._bulk_losses = 0
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
                if not size:
                    self.offered_bulk(message.bulk_port)
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
        hears: ChunkListener,
        length_of: Callable[[int], int],
        buffers: BufferPool,
    ) -> AsyncGenerator[FetchedChunk, None]:
        """One of the wanted chunks, chosen by the peer, not verified yet; nothing when the peer has none of them. The
        bytes are good until the generator is closed.

        Comes over the bulk path when the peer offers it, else over gRPC. caller: this peer, when it serves what it has.
        Raises PeerBusyError, ContentNotHeldError, ContentChangedError, and InvalidArgumentError when the peer sends
        what was not asked for.
        """
        memory = buffers.take(length_of(next(iter(wanted))))
        receiver = _ChunkReceiver(wanted, length_of, memory, hears)
        try:
            # Again twice at most: an offer may come in place of a chunk, and what was offered may not be reachable.
            for _ in range(3):
                if (bulk := self._usable_bulk()) is not None:
                    try:
                        chunk = await self._fetch_bulk(bulk, content_id, caller, receiver)
                        break
                    except BulkUnreachableError:
                        self._bar_bulk()
                accepts = self._accepts_bulk and not self._bulk_barred
                try:
                    chunk = await self._fetch_rpc(content_id, caller, receiver, accepts_bulk=accepts)
                    break
                except _BulkOfferedError as offer:
                    self.offered_bulk(offer.port)
            else:
                raise PeerUnavailableError(f"{self.address} offers chunks where there are none")
            if chunk is not None:
                yield chunk
        finally:
            buffers.give_back(memory)

    def offered_bulk(self, port: int) -> None:
        """The peer serves chunks on that port too; 0: it does not. Raises InvalidArgumentError for no port."""
        if parse_bulk_port(port) == 0 or not self._accepts_bulk:
            return
        host = self.address.rpartition(":")[0]
        if self._bulk is None or self._bulk.address != f"{host}:{port}":
            self.close()
            self._bulk = BulkPeer(Address(f"{host}:{port}"), self._down)

    def knows_bulk(self, port: int) -> None:
        """Somebody else says that the peer serves on that port; what the peer says itself counts more."""
        if self._bulk is None:
            self.offered_bulk(port)

    def close(self) -> None:
        """Closes what is idle beside the channel."""
        if self._bulk is not None:
            self._bulk.close()
            self._bulk = None

    def _bar_bulk(self) -> None:
        self._bulk_barred_until = asyncio.get_running_loop().time() + BULK_BAR_SECONDS

    @property
    def _bulk_barred(self) -> bool:
        return asyncio.get_running_loop().time() < self._bulk_barred_until

    def _usable_bulk(self) -> BulkPeer | None:
        return None if self._bulk_barred else self._bulk

    async def _fetch_bulk(
        self, bulk: BulkPeer, content_id: ContentId, caller: SourceAddress | None, receiver: "_ChunkReceiver"
    ) -> FetchedChunk | None:
        request = BulkRequest(content_id, ranges_of(receiver.wanted), caller, tracing.traceparent())
        try:
            answer = await bulk.fetch(
                request, Expected(receiver.accept_answer, receiver.hears.received, receiver.hears.named)
            )
        except PeerUnavailableError:
            # Something between here and there may let connections through, and nothing else.
            self._bulk_losses += 1
            if self._bulk_losses >= MAX_BULK_LOSSES:
                self._bulk_losses = 0
                self._bar_bulk()
            raise
        self._bulk_losses = 0
        if isinstance(answer, BulkRefusal):
            raise _refused(self.address, answer)
        return None if answer.index is None else receiver.chunk("bulk")

    async def _fetch_rpc(
        self, content_id: ContentId, caller: SourceAddress | None, receiver: "_ChunkReceiver", *, accepts_bulk: bool
    ) -> FetchedChunk | None:
        request = pb.FetchChunksRequest(
            content_id=content_id.raw,
            wanted=ranges_to_pb(receiver.wanted),
            max_chunks=1,
            peer_id=caller.peer_id if caller else "",
            address=caller.address if caller else "",
            accepts_bulk=accepts_bulk,
            bulk_port=caller.bulk_port if caller else 0,
        )
        call = self._fetch(request)
        try:
            async with _translated(self.address):
                async for item in call:
                    if isinstance(item, memoryview) or item.HasField("data"):
                        piece = item if isinstance(item, memoryview) else memoryview(item.data)
                        receiver.add(piece)
                        await self._down.take(len(piece))
                    elif item.HasField("bulk"):
                        raise _BulkOfferedError(item.bulk.port)
                    elif item.HasField("busy"):
                        raise _busy(self.address, item.busy)
                    else:
                        receiver.begin(item.chunk.index, item.chunk.size_bytes, sources_from_pb(item.chunk.sources))
            return receiver.chunk("grpc") if receiver.begun else None
        finally:
            call.cancel()

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
        """Chunks that the peer has: first all, then each news; each with whether the peer has all of the content.

        Over the bulk path where there is one: a message of gRPC costs several times as much, and with many peers there
        are many. What was told before is told again when the path changes.
        """
        if (bulk := self._usable_bulk()) is None:
            async with contextlib.aclosing(self._watch_rpc(content_id, count)) as news:
                async for held, complete in news:
                    yield held, complete
                    bulk = self._usable_bulk()
                    if complete or bulk is not None:
                        break
            if bulk is None or complete:
                return
        try:
            async with contextlib.aclosing(bulk.watch(content_id, count)) as news:
                async for held, complete in news:
                    yield held, complete
        except BulkUnreachableError:
            self._bar_bulk()
            async with contextlib.aclosing(self._watch_rpc(content_id, count)) as news:
                async for held, complete in news:
                    yield held, complete

    async def _watch_rpc(self, content_id: ContentId, count: int) -> AsyncGenerator[tuple[ChunkSet, bool], None]:
        call = self._watch(pb.WatchChunksRequest(content_id=content_id.raw))
        try:
            async with _translated(self.address):
                async for message in call:
                    held = ChunkSet.full(count) if message.complete else ranges_from_pb(count, message.held)
                    self.offered_bulk(message.bulk_port)
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

    async def begin(
        self, name: Name, content_id: ContentId, manifest: bytes, *, overwrite: bool, published_ns: int
    ) -> None:
        """Says what comes: the name, and the encoded manifest of the content."""
        begin = pb.StoreBegin(
            name=name,
            content_id=content_id.raw,
            manifest_size_bytes=len(manifest),
            overwrite=overwrite,
            published_time=timestamp_of(published_ns),
        )
        await self._call.write(pb.StoreFileRequest(begin=begin))
        for start in range(0, len(manifest), MAX_PIECE_BYTES):
            await self._call.write(pb.StoreFileRequest(manifest_part=manifest[start : start + MAX_PIECE_BYTES]))

    async def lacking(self, chunk_count: int) -> ChunkSet | None:
        """The chunks that the peer asks for; None when it does not take the upload."""
        response = await self._receive()
        if response is None or not response.HasField("lacking"):
            return None
        return ranges_from_pb(chunk_count, response.lacking.chunks)

    async def send_header(self, index: int, size_bytes: int) -> None:
        """Says which chunk the next pieces make."""
        await self._call.write(pb.StoreFileRequest(chunk=pb.ChunkHeader(index=index, size_bytes=size_bytes)))

    async def send_piece(self, piece: memoryview) -> None:
        """Sends a piece of the chunk whose header went before."""
        await self._call.write(piece)

    async def done_sending(self) -> None:
        """Says that nothing more comes."""
        await self._call.done_writing()

    async def stored(self) -> bool | None:
        """The peer's next message: whether it has stored and announced the file; None at the end of the call."""
        response = await self._receive()
        return None if response is None else response.HasField("stored")

    async def _receive(self) -> pb.StoreFileResponse | None:
        message = await self._call.read()
        return None if message is grpc.aio.EOF else message


class PeerConnections:
    """Channels to peers, one for each address, shared by all transfers of the process."""

    def __init__(self, max_open: int = MAX_OPEN_CHANNELS, *, down: RateLimit | None = None, bulk: bool = True) -> None:
        """down: the limit of chunks that come in, by either path. bulk: use bulk ports where they are offered."""
        self._max_open = max_open
        self._down = down
        self._bulk = bulk
        self._open: OrderedDict[Address, _Shared] = OrderedDict()

    @contextlib.asynccontextmanager
    async def to(self, address: Address, *, bulk_port: int = 0) -> AsyncGenerator[PeerClient, None]:
        """A client for an address, usable inside the block. Costs nothing when a channel is open already.

        bulk_port: what is known of the peer's bulk port, so that it need not be asked; 0: nothing.
        """
        shared = self._open.get(address)
        if shared is None:
            channel = make_channel(address)
            shared = self._open[address] = _Shared(channel, PeerClient(address, channel, self._down, bulk=self._bulk))
        self._open.move_to_end(address)
        shared.client.knows_bulk(bulk_port)
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
            await self._open.pop(address).close()

    async def aclose(self) -> None:
        """Closes every channel; calls under way end with PeerUnavailableError."""
        while self._open:
            _, shared = self._open.popitem()
            await shared.close()

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

    async def close(self) -> None:
        self.client.close()
        await self.channel.close()


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


class _ChunkReceiver:
    """A chunk that is coming, by either path: nothing but one of those wanted, and never more than it."""

    def __init__(
        self, wanted: ChunkSet, length_of: Callable[[int], int], memory: bytearray, hears: ChunkListener
    ) -> None:
        self.wanted = wanted
        self.hears = hears
        self._length_of = length_of
        self._memory = memory
        self._buffer: ChunkBuffer | None = None
        self._full = False

    @property
    def begun(self) -> bool:
        """Whether the peer has chosen."""
        return self._buffer is not None

    def accept_answer(self, answer: BulkAnswer) -> memoryview:
        """The buffer for the chunk that a bulk answer announces."""
        if answer.index is None:
            raise InvalidArgumentError("no chunk was announced")
        self.begin(answer.index, answer.size_bytes, answer.sources)
        self._full = True
        return self._require().data

    def begin(self, index: int, size_bytes: int, sources: tuple[SourceAddress, ...]) -> None:
        """The peer announces a chunk. Raises InvalidArgumentError when it was not asked for."""
        if self._buffer is not None:
            raise InvalidArgumentError("more chunks came than were asked for")
        if index not in self.wanted or size_bytes != self._length_of(index):
            raise InvalidArgumentError(f"chunk {index} of {size_bytes} bytes was not asked for")
        # The candidates may differ in size: the last chunk is shorter.
        fits = len(self._memory) >= size_bytes
        self._buffer = ChunkBuffer(index, size_bytes, self._memory if fits else None)
        if sources:
            self.hears.named(sources)
        self.hears.chosen(index)

    def add(self, piece: memoryview) -> None:
        """The next piece. Raises InvalidArgumentError when it does not belong to the chunk."""
        self._full = self._require().add(piece)
        self.hears.received(len(piece))

    def chunk(self, path: str) -> FetchedChunk:
        """What came. Raises PeerUnavailableError when it is not whole."""
        buffer = self._require()
        if not self._full:
            raise PeerUnavailableError("the peer stopped in the middle of a chunk")
        return FetchedChunk(buffer.index, buffer.data, path)

    def _require(self) -> ChunkBuffer:
        if self._buffer is None:
            raise InvalidArgumentError("data came before any chunk was announced")
        return self._buffer


class _BulkOfferedError(Exception):
    """The peer has a bulk port."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self.port = port


def _refused(address: Address, refusal: BulkRefusal) -> MingaError:
    """The error that a refusal is for whoever asked."""
    if isinstance(refusal.error, BusyError):
        return PeerBusyError(f"{address} is busy", retry_after=refusal.error.retry_after, sources=refusal.sources)
    return refusal.error


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
