"""The peer's gRPC service: contract in, content store out. Messages of the contract stop here."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from datetime import timedelta
from functools import partial
from typing import Any, Protocol

import grpc

from minga_core.chunks import ChunkSet
from minga_core.errors import BusyError, InvalidArgumentError
from minga_core.ids import ContentId
from minga_core.names import Name, parse_name
from minga_core.records import FileRow
from minga_engine.parts.content_store import ContentStore
from minga_engine.progress import Progress
from minga_engine.wire.messages import (
    DATA_FIELD_OF_FETCH,
    DATA_FIELD_OF_STORE,
    MAX_RANGES,
    MAX_SOURCES,
    PEER_SERVICE,
    SourceAddress,
    nanos_of,
    ranges_to_pb,
    source_from_caller,
    sources_from_pb,
    sources_to_pb,
)
from minga_engine.wire.payload import MAX_PIECE_BYTES, PIECE_BYTES, data_deserializer, data_serializer, pieces
from minga_peer.serve.chunks import ChunkServing, Sending
from minga_peer.serve.quotas import Capacity
from minga_peer.serve.receiving import UploadReceiver
from minga_protos.peer.v1 import peer_pb2 as pb
from minga_runtime import tracing
from minga_runtime.shares import caller_of

MAX_CHUNKS_A_CALL = 64


class Announcer(Protocol):
    """Tells the registry what is shared here."""

    async def announced(self, row: FileRow, timeout: timedelta) -> int:
        """The table revision with which the registry has heard of `row`.

        Raises RegistryUnavailableError when it has not within `timeout`; it will all the same be told later.
        """
        ...


class Replicator(Protocol):
    """Downloads into the shared folder."""

    def replicate(
        self, name: Name, content_id: ContentId, sources: list[SourceAddress], *, overwrite: bool, published_ns: int
    ) -> AsyncGenerator[tuple[Progress, FileRow | None], None]:
        """Progress, and in the last item the finished row."""
        ...


class PeerService:
    """Implements `minga.peer.v1.PeerService` over a ContentStore."""

    def __init__(
        self,
        store: ContentStore,
        *,
        announcer: Announcer,
        replicator: Replicator,
        receiver: UploadReceiver,
        serving: ChunkServing,
        bulk_port: int = 0,
        capacity: Capacity | None = None,
        announce_timeout: timedelta = timedelta(seconds=10),
    ) -> None:
        self._store = store
        self._announcer = announcer
        self._replicator = replicator
        self._announce_timeout = announce_timeout
        self._receiver = receiver
        self._serving = serving
        self._bulk_port = bulk_port
        self._capacity = capacity or Capacity()

    async def get_manifest(
        self, request: pb.GetManifestRequest, context: Any
    ) -> AsyncGenerator[pb.GetManifestResponse, None]:
        """See the contract."""
        with self._capacity.manifests.taken(caller_of(context.peer())):
            encoded = (await self._store.manifest(ContentId(request.content_id))).encode()
            for start in range(0, len(encoded), MAX_PIECE_BYTES):
                port = self._bulk_port if start == 0 else 0
                yield pb.GetManifestResponse(part=encoded[start : start + MAX_PIECE_BYTES], bulk_port=port)

    async def fetch_chunks(
        self, request: pb.FetchChunksRequest, context: Any
    ) -> AsyncGenerator[pb.FetchChunksResponse | memoryview, None]:
        """See the contract."""
        content_id = ContentId(request.content_id)
        caller = source_from_caller(request)
        if not 0 <= request.max_chunks <= MAX_CHUNKS_A_CALL:
            raise InvalidArgumentError(f"max_chunks is 0 to {MAX_CHUNKS_A_CALL}, not {request.max_chunks}")
        if not 0 < len(request.wanted) <= MAX_RANGES:
            raise InvalidArgumentError(f"wanted has 1 to {MAX_RANGES} ranges, not {len(request.wanted)}")
        wanted = self._serving.wanted(content_id, [(each.start_index, each.end_index) for each in request.wanted])
        if request.accepts_bulk and self._bulk_port:
            yield pb.FetchChunksResponse(bulk=pb.BulkOffer(port=self._bulk_port))
            return
        geometry = (await self._store.manifest(content_id)).geometry
        host = caller_of(context.peer())
        taker = str(caller.peer_id) if caller is not None else context.peer()
        try:
            for _ in range(max(1, request.max_chunks)):
                sendable = wanted & (self._store.held(content_id) or ChunkSet(wanted.count))
                if not sendable:
                    return
                turn = self._serving.sending(
                    content_id, sendable, caller, taker, geometry, host=host, traceparent=tracing.traceparent()
                )
                async with turn as sending:
                    if sending.index is None:
                        return
                    wanted.discard(sending.index)
                    async with aclosing(self._send(content_id, sending)) as items:
                        async for item in items:
                            yield item
        except BusyError as error:
            others = sources_to_pb(self._serving.others(content_id, caller))
            millis = int(error.retry_after / timedelta(milliseconds=1))
            yield pb.FetchChunksResponse(busy=pb.Busy(retry_after_millis=millis, sources=others))

    async def _send(
        self, content_id: ContentId, sending: Sending
    ) -> AsyncGenerator[pb.FetchChunksResponse | memoryview, None]:
        data = await self._store.read_chunk(content_id, sending.turn.index)
        header = pb.ChunkHeader(index=sending.turn.index, size_bytes=len(data), sources=sources_to_pb(sending.others))
        yield pb.FetchChunksResponse(chunk=header)
        for piece in pieces(data, self._serving.up.piece_bytes(PIECE_BYTES)):
            await self._serving.up.take(len(piece))
            yield piece
        self._serving.sent(sending, len(data))

    async def watch_chunks(
        self, request: pb.WatchChunksRequest, context: Any
    ) -> AsyncGenerator[pb.WatchChunksResponse, None]:
        """See the contract."""
        content_id, port = ContentId(request.content_id), self._bulk_port
        with self._capacity.watches.taken(caller_of(context.peer())):
            async with aclosing(self._store.watch(content_id)) as news:
                async for chunks in news:
                    held = self._store.held(content_id)
                    complete = held is not None and held.complete
                    yield pb.WatchChunksResponse(held=ranges_to_pb(chunks), complete=complete, bulk_port=port)
                    if complete:
                        return
                    port = 0

    async def store_file(
        self, requests: AsyncIterator[pb.StoreFileRequest | memoryview], context: Any
    ) -> AsyncGenerator[pb.StoreFileResponse, None]:
        """See the contract."""
        host = caller_of(context.peer())
        memory = partial(self._capacity.upload_bytes.taken, host)
        with self._capacity.uploads.taken(host):
            async with aclosing(self._receiver.receive(requests, memory)) as steps:
                async for step in steps:
                    yield await self._told(step)

    async def _told(self, step: ChunkSet | int | FileRow) -> pb.StoreFileResponse:
        """What the uploader hears of a step."""
        if isinstance(step, FileRow):
            revision = await self._announcer.announced(step, self._announce_timeout)
            return pb.StoreFileResponse(stored=pb.Stored(table_revision=revision))
        if isinstance(step, ChunkSet):
            return pb.StoreFileResponse(lacking=pb.Lacking(chunks=ranges_to_pb(step)))
        return pb.StoreFileResponse(progress=pb.StoreProgress(held_bytes=step))

    async def replicate_file(
        self, request: pb.ReplicateFileRequest, context: Any
    ) -> AsyncGenerator[pb.ReplicateFileResponse, None]:
        """See the contract."""
        name, content_id = parse_name(request.name), ContentId(request.content_id)
        if not 0 < len(request.sources) <= MAX_SOURCES:
            raise InvalidArgumentError(f"sources has 1 to {MAX_SOURCES} peers, not {len(request.sources)}")
        steps = self._replicator.replicate(
            name,
            content_id,
            list(sources_from_pb(request.sources)),
            overwrite=request.overwrite,
            published_ns=nanos_of(request.published_time),
        )
        with self._capacity.replicas.taken(caller_of(context.peer())):
            async with aclosing(steps):
                async for progress, row in steps:
                    if row is not None:
                        await self._announcer.announced(row, self._announce_timeout)
                    yield pb.ReplicateFileResponse(
                        held_bytes=progress.held_bytes, size_bytes=progress.size_bytes, stored=row is not None
                    )


def add_peer_service(service: PeerService, server: grpc.aio.Server) -> None:
    """Registers the service with the bulk codec for its two bulk messages.

    The generated `add_PeerServiceServicer_to_server` does the same with the protobuf runtime's own (de)serializers.
    """
    fetch_codec = data_serializer(DATA_FIELD_OF_FETCH)
    store_codec = data_deserializer(DATA_FIELD_OF_STORE, pb.StoreFileRequest.FromString)
    handlers: dict[str, Any] = {
        "GetManifest": grpc.unary_stream_rpc_method_handler(
            service.get_manifest,
            pb.GetManifestRequest.FromString,
            pb.GetManifestResponse.SerializeToString,
        ),
        "FetchChunks": grpc.unary_stream_rpc_method_handler(
            service.fetch_chunks, pb.FetchChunksRequest.FromString, fetch_codec
        ),
        "WatchChunks": grpc.unary_stream_rpc_method_handler(
            service.watch_chunks,
            pb.WatchChunksRequest.FromString,
            pb.WatchChunksResponse.SerializeToString,
        ),
        "StoreFile": grpc.stream_stream_rpc_method_handler(
            service.store_file, store_codec, pb.StoreFileResponse.SerializeToString
        ),
        "ReplicateFile": grpc.unary_stream_rpc_method_handler(
            service.replicate_file,
            pb.ReplicateFileRequest.FromString,
            pb.ReplicateFileResponse.SerializeToString,
        ),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(PEER_SERVICE, handlers),))
    server.add_registered_method_handlers(PEER_SERVICE, handlers)
