"""Heartbeats over one standing stream, which cost the registry less than half of what single calls would."""

import asyncio
from datetime import timedelta
from typing import Any, cast

import grpc
import grpc.aio

from minga_core.errors import RegistryUnavailableError
from minga_protos.registry.v1 import registry_pb2 as pb
from minga_protos.registry.v1.registry_pb2_grpc import RegistryServiceStub

MAX_CALL_TIMEOUT = timedelta(seconds=5)
JITTER = 0.2
"""Heartbeats are sent at the interval ± this share, so that a fleet's heartbeats spread over time (design: ± 20 %)."""


def call_timeout(ttl: timedelta, interval: timedelta) -> timedelta:
    """The limit of a call while a lease of that length is renewed at that interval.

    Half of what is left of the lease when a heartbeat is due: one call that hangs leaves time for another.
    """
    return min(MAX_CALL_TIMEOUT, (ttl - interval * (1 + JITTER)) / 2)


class LeaseStream:
    """Opens the stream with the first heartbeat, and again when the registry has ended it. One heartbeat at a time."""

    def __init__(self) -> None:
        self._call: Any = None
        self.timeout = MAX_CALL_TIMEOUT
        """The limit of one heartbeat."""

    async def heartbeat(self, stub: RegistryServiceStub, request: pb.HeartbeatRequest) -> pb.HeartbeatResponse:
        """The answer to a heartbeat. stub: for a new stream.

        Raises AioRpcError, or RegistryUnavailableError when none comes in time.
        """
        try:
            async with asyncio.timeout(self.timeout.total_seconds()):
                answer = await self._over_standing_stream(request) or await self._over_new_stream(stub, request)
        except TimeoutError:
            raise RegistryUnavailableError("no answer in time") from None
        if answer is None:
            raise RegistryUnavailableError("the registry ended the stream of heartbeats")
        return answer

    def close(self) -> None:
        """End the stream."""
        if self._call is not None:
            self._call.cancel()
        self._call = None

    async def _over_standing_stream(self, request: pb.HeartbeatRequest) -> pb.HeartbeatResponse | None:
        """None when there is no stream any more: whatever error it ended with, a new one shows what is true now."""
        if self._call is None:
            return None
        try:
            return await self._exchange(request)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            return None

    async def _over_new_stream(
        self, stub: RegistryServiceStub, request: pb.HeartbeatRequest
    ) -> pb.HeartbeatResponse | None:
        # Without an iterator of requests the call is written to and read from by hand.
        self._call = cast("Any", stub).KeepLease()
        return await self._exchange(request)

    async def _exchange(self, request: pb.HeartbeatRequest) -> pb.HeartbeatResponse | None:
        """The answer; None when the registry has ended the stream, which is kept only when there is an answer."""
        call, self._call = self._call, None
        try:
            await call.write(request)
            answer = await call.read()
            if not isinstance(answer, pb.HeartbeatResponse):
                return None
            self._call = call
            return answer
        finally:
            if self._call is None:
                call.cancel()
