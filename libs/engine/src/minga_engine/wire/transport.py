"""Fetching from peers: the port that transfers use, and its implementation.

Manifests come over gRPC, chunks, availability and small files over HTTP. Nothing is verified here but manifests; what
arrives is never more than, and nothing but, what was asked for.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from minga_core.chunks import ChunkSet, Geometry
from minga_core.errors import BusyError, InvalidArgumentError, InvalidManifestError
from minga_core.ids import Address, ContentId
from minga_core.manifest import MAX_MANIFEST_BYTES, Manifest
from minga_engine.wire.connections import PeerConnection, PeerConnections, peer_errors
from minga_engine.wire.groups import Group
from minga_engine.wire.http_client import HttpPeer, HttpUnreachableError, OnUpdate, Response, ResponseHandler
from minga_engine.wire.http_format import MAX_RANGES, ChunkRequest, ChunkResponse, WrongChunkReport
from minga_engine.wire.memory import Buffer, fresh
from minga_engine.wire.messages import SourceAddress
from minga_protos.peer.v1 import peer_pb2 as pb
from minga_runtime import tracing

MANIFEST_SECONDS = 10.0
"""A manifest that takes longer is given up."""


class PeerBusyError(BusyError):
    """The peer has no serving slot; `sources` are others that it has served."""

    def __init__(self, message: str, *, retry_after: timedelta, sources: tuple[SourceAddress, ...] = ()) -> None:
        super().__init__(message, retry_after=retry_after)
        self.sources = sources


class ChunkListener(Protocol):
    """Follows one chunk while it arrives."""

    def found_sources(self, sources: tuple[SourceAddress, ...]) -> None:
        """The peer named others that fetch the same content (peer exchange)."""
        ...

    def chosen(self, index: int) -> None:
        """The peer has announced which chunk follows."""
        ...

    def received(self, count: int) -> None:
        """So many more bytes have arrived."""
        ...


class BufferPool:
    """Buffers for chunks, used again: fresh memory costs a page fault for every 4 KiB, which on the receiving side was
    the largest single cost of a fast download (profile: 1.5 of 5 s for 1 GiB in 4 MiB chunks).

    One for a download: all its chunks but the last have one size. Holds no more buffers than were in use at once.
    """

    def __init__(self) -> None:
        self._free: list[Buffer] = []

    def acquire(self, size_bytes: int) -> Buffer:
        """A buffer of at least that size, with any content."""
        while self._free:
            buffer = self._free.pop()
            if len(buffer) >= size_bytes:
                return buffer
        return fresh(size_bytes)

    def release(self, buffer: Buffer) -> None:
        """Makes the buffer available again; the caller does not use it any more."""
        self._free.append(buffer)


@dataclass(frozen=True, slots=True)
class WantedChunks:
    """What one request asks for: any one of `chunks`, which are not empty."""

    content_id: ContentId
    geometry: Geometry
    chunks: ChunkSet
    requester: SourceAddress | None
    """This peer, when it serves what it has."""
    buffers: BufferPool


@dataclass(frozen=True, slots=True)
class FetchedChunk:
    """A chunk that arrived whole, not verified yet."""

    index: int
    data: memoryview


class Transport(Protocol):
    """Fetches from peers. Every method raises PeerUnavailableError when the peer cannot be reached, the peer's own
    error when it answers with one, and InvalidArgumentError when it sends what was not asked for. All are safe to
    retry; cancelling one ends the peer's work for it."""

    async def manifest(self, source: SourceAddress, content_id: ContentId) -> Manifest:
        """The manifest of a content, checked against its id. Raises InvalidManifestError when it does not match."""
        ...

    def fetch(
        self, source: SourceAddress, wanted: WantedChunks, listener: ChunkListener
    ) -> AbstractAsyncContextManager[FetchedChunk | None]:
        """One of the wanted chunks, chosen by the peer; None when it has none of them. The bytes are good until the end
        of the block. Raises PeerBusyError."""
        ...

    async def watch(self, source: SourceAddress, content_id: ContentId, count: int, on_update: OnUpdate) -> None:
        """Follows the availability of a content of `count` chunks: first all chunks held, then each update, each with
        whether the peer has the whole content; returns when it has."""
        ...

    async def report_wrong(self, source: SourceAddress, content_id: ContentId, index: int) -> None:
        """Have the peer look at a chunk that it sent wrong, so that it sends it to nobody else. Returns once it knows
        of it. Raises PeerBusyError."""
        ...

    def fetch_files(self, source: SourceAddress, content_ids: Sequence[ContentId]) -> AsyncGenerator[Group, None]:
        """The small contents among those (1 to MAX_SMALL_FILES) that the peer has whole, as they arrive: index in
        `content_ids` and bytes, not verified yet. What has not arrived at the end is not held there.

        Raises PeerBusyError.
        """
        ...


class PeerTransport:
    """Implements Transport."""

    def __init__(self, connections: PeerConnections) -> None:
        self._connections = connections

    async def manifest(self, source: SourceAddress, content_id: ContentId) -> Manifest:
        """See Transport."""
        parts: list[bytes] = []
        async with (
            self._connections.to(source) as peer,
            aclosing(_manifest_parts(peer, content_id)) as messages,
        ):
            async for message in messages:
                parts.append(message.part)
                if sum(map(len, parts)) > MAX_MANIFEST_BYTES:
                    raise InvalidManifestError(f"{peer.address} sends a manifest that does not end")
        return Manifest.decode(b"".join(parts), expected=content_id)

    @asynccontextmanager
    async def fetch(
        self, source: SourceAddress, wanted: WantedChunks, listener: ChunkListener
    ) -> AsyncGenerator[FetchedChunk | None, None]:
        """See Transport."""
        ranges = tuple(wanted.chunks.ranges())[:MAX_RANGES]
        request = ChunkRequest(wanted.content_id, ranges, wanted.requester, tracing.traceparent())
        memory = wanted.buffers.acquire(wanted.geometry.length(ranges[0][0]))
        try:
            receiver = _ChunkReceiver(wanted, listener, memory)
            response = await self._ask(source, request, receiver)
            yield None if response.index is None else FetchedChunk(response.index, receiver.data)
        finally:
            wanted.buffers.release(memory)

    async def report_wrong(self, source: SourceAddress, content_id: ContentId, index: int) -> None:
        """See Transport."""
        await self._ask(source, WrongChunkReport(content_id, index), _NothingFollows())

    async def _ask(
        self, source: SourceAddress, request: ChunkRequest | WrongChunkReport, handler: ResponseHandler
    ) -> ChunkResponse:
        """The response to a request. Raises the peer's error when it answers with one."""
        async with self._connections.to(source) as peer:
            response = await _exchange(peer, source.http_port, request, handler)
        if isinstance(response, ChunkResponse):
            return response
        if isinstance(response.error, BusyError):
            raise _busy(source.address, response.error.retry_after, response.sources)
        raise response.error

    async def watch(self, source: SourceAddress, content_id: ContentId, count: int, on_update: OnUpdate) -> None:
        """See Transport."""
        async with self._connections.to(source) as peer:
            if (http := peer.http(source.http_port)) is not None:
                try:
                    await http.watch(content_id, count, on_update)
                    return
                except HttpUnreachableError:
                    peer.forget_http()
            await (await _ask_for_http(peer, content_id)).watch(content_id, count, on_update)

    async def fetch_files(self, source: SourceAddress, content_ids: Sequence[ContentId]) -> AsyncGenerator[Group, None]:
        """See Transport."""
        async with self._connections.to(source) as peer:
            http = peer.http(source.http_port) or await _ask_for_http(peer, content_ids[0])
            try:
                async with aclosing(http.files(content_ids)) as groups:
                    async for group in groups:
                        yield group
            except HttpUnreachableError:
                # It may have another port by now, for which it is asked the next time.
                peer.forget_http()
                raise
            except BusyError as error:
                raise _busy(peer.address, error.retry_after) from error


async def _exchange(
    peer: PeerConnection, known_port: int, request: ChunkRequest | WrongChunkReport, handler: ResponseHandler
) -> Response:
    """The response from the known port; when there is none, or it cannot be reached, from the one that the peer gives:
    a peer that was started again may have another."""
    if (http := peer.http(known_port)) is not None:
        try:
            return await http.fetch(request, handler)
        except HttpUnreachableError:
            peer.forget_http()
    return await (await _ask_for_http(peer, request.content_id)).fetch(request, handler)


async def _ask_for_http(peer: PeerConnection, content_id: ContentId) -> HttpPeer:
    """The HTTP client of the port that the peer gives with the first part of a manifest."""
    async with aclosing(_manifest_parts(peer, content_id)) as messages:
        async for message in messages:
            return peer.http_on(message.http_port)
    raise InvalidArgumentError(f"{peer.address} sends an empty manifest")


async def _manifest_parts(peer: PeerConnection, content_id: ContentId) -> AsyncGenerator[pb.GetManifestResponse, None]:
    call = peer.stub.GetManifest(pb.GetManifestRequest(content_id=content_id.raw), timeout=MANIFEST_SECONDS)
    first = True
    try:
        with peer_errors(peer.address):
            async for message in call:
                if first:
                    peer.http_on(message.http_port)
                    first = False
                yield message
    finally:
        call.cancel()


class _ChunkReceiver:
    """Gives the buffer for a chunk that was asked for, and passes on what happens. Implements ResponseHandler."""

    def __init__(self, wanted: WantedChunks, listener: ChunkListener, memory: Buffer) -> None:
        self._wanted = wanted
        self._listener = listener
        self._memory = memory
        self.data = memoryview(b"")

    def accept(self, response: ChunkResponse) -> memoryview:
        """See ResponseHandler."""
        index, size_bytes = response.index, response.size_bytes
        wanted = self._wanted
        if index is None or index not in wanted.chunks or size_bytes != wanted.geometry.length(index):
            raise InvalidArgumentError(f"chunk {index} of {size_bytes} bytes was not asked for")
        # The candidates may differ in size: the last chunk is shorter.
        memory = self._memory if len(self._memory) >= size_bytes else bytearray(size_bytes)
        self.data = memoryview(memory)[:size_bytes]
        if response.sources:
            self._listener.found_sources(response.sources)
        self._listener.chosen(index)
        return self.data

    def received(self, count: int) -> None:
        """See ResponseHandler."""
        self._listener.received(count)

    def found_sources(self, sources: tuple[SourceAddress, ...]) -> None:
        """See ResponseHandler."""
        self._listener.found_sources(sources)


class _NothingFollows:
    """Refuses a chunk: none was asked for. Implements ResponseHandler."""

    def accept(self, response: ChunkResponse) -> memoryview:
        """See ResponseHandler."""
        raise InvalidArgumentError(f"chunk {response.index} was not asked for")

    def received(self, count: int) -> None:
        """See ResponseHandler."""

    def found_sources(self, sources: tuple[SourceAddress, ...]) -> None:
        """See ResponseHandler."""


def _busy(address: Address, retry_after: timedelta, sources: tuple[SourceAddress, ...] = ()) -> PeerBusyError:
    bounded = min(max(retry_after, timedelta(milliseconds=10)), timedelta(minutes=1))
    return PeerBusyError(f"{address} is busy", retry_after=bounded, sources=sources)
