"""Serving many small contents in one call; the peer contract's FetchFiles. Messages of the contract stop here."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import timedelta
from typing import Any

import grpc

from minga_core.errors import BusyError, InvalidArgumentError
from minga_core.ids import ContentId
from minga_engine.wire.messages import MAX_SMALL_FILES, PEER_SERVICE
from minga_peer.serve.chunks import ServingMetrics
from minga_peer.serve.slots import UploadSlots
from minga_peer.share.small_store import READ_BYTES, SmallFiles
from minga_protos.peer.v1 import peer_pb2 as pb
from minga_runtime.rate_limit import RateLimit
from minga_runtime.shares import caller_of


class SmallFileService:
    """Serves the small files of a store. One upload slot serves a whole call."""

    def __init__(self, small: SmallFiles, *, slots: UploadSlots, metrics: ServingMetrics, up: RateLimit) -> None:
        self._small = small
        self._slots = slots
        self._metrics = metrics
        self._up = up

    async def fetch_files(
        self, request: pb.FetchFilesRequest, context: Any
    ) -> AsyncGenerator[pb.FetchFilesResponse, None]:
        """See the contract."""
        if not 0 < len(request.content_ids) <= MAX_SMALL_FILES:
            raise InvalidArgumentError(f"content_ids are 1 to {MAX_SMALL_FILES}, not {len(request.content_ids)}")
        content_ids = [ContentId(raw) for raw in request.content_ids]
        try:
            with self._slots.taken(caller_of(context.peer())):
                async with aclosing(self._small.read(content_ids, self._up.piece_bytes(READ_BYTES))) as groups:
                    async for group in groups:
                        size_bytes = sum(len(data) for _, data in group)
                        await self._up.take(size_bytes)
                        yield pb.FetchFilesResponse(files=[pb.SmallFile(index=at, data=data) for at, data in group])
                        self._metrics.sent(size_bytes, complete=True)
        except BusyError as error:
            self._metrics.busy()
            millis = int(error.retry_after / timedelta(milliseconds=1))
            yield pb.FetchFilesResponse(busy=pb.Busy(retry_after_millis=millis))


def add_small_file_service(service: SmallFileService, server: grpc.aio.Server) -> None:
    """Registers the call beside those of `add_peer_service`: both are methods of one service of the contract."""
    handlers: dict[str, Any] = {
        "FetchFiles": grpc.unary_stream_rpc_method_handler(
            service.fetch_files, pb.FetchFilesRequest.FromString, pb.FetchFilesResponse.SerializeToString
        )
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(PEER_SERVICE, handlers),))
    server.add_registered_method_handlers(PEER_SERVICE, handlers)
