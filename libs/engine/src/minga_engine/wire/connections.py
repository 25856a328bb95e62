"""Connections to peers: one gRPC channel and one HTTP client for each address, shared by all transfers."""

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import AsyncGenerator
from types import TracebackType

import grpc
import grpc.aio

from minga_core.errors import InternalError, PeerUnavailableError
from minga_core.ids import Address
from minga_engine.wire.http_client import HttpPeer
from minga_engine.wire.messages import parse_http_port
from minga_protos.peer.v1.peer_pb2_grpc import PeerServiceStub
from minga_runtime.channels import make_channel
from minga_runtime.grpc_errors import error_from_rpc
from minga_runtime.rate_limit import RateLimit

MAX_OPEN_CONNECTIONS = 64
"""Unused connections above this are closed, least recently used first. Above a swarm's sources and a folder's
holders."""


class PeerConnection:
    """The gRPC channel and the HTTP client of one peer. Only for use inside `PeerConnections.to`."""

    def __init__(self, address: Address, down: RateLimit) -> None:
        self.address = address
        self.users = 0
        self._down = down
        self._channel = make_channel(address)
        self._http: HttpPeer | None = None
        self.stub = PeerServiceStub(self._channel)

    def http(self, port: int = 0) -> HttpPeer | None:
        """The peer's HTTP client; None while its port is not known. port: what others say it is, 0 for nothing; what
        the peer itself said counts more. Raises InvalidArgumentError for no port."""
        if self._http is None and port:
            return self.http_on(port)
        return self._http

    def http_on(self, port: int) -> HttpPeer:
        """The peer's HTTP client on the port that the peer gave. Raises InvalidArgumentError for no port."""
        if parse_http_port(port) == 0:
            raise PeerUnavailableError(f"{self.address} serves no chunks over HTTP")
        address = Address(f"{self.address.rpartition(':')[0]}:{port}")
        if self._http is None or self._http.address != address:
            self.forget_http()
            self._http = HttpPeer(address, self._down)
        return self._http

    def forget_http(self) -> None:
        """Closes the HTTP client: its port cannot be reached, and may have changed."""
        if self._http is not None:
            self._http.close()
            self._http = None

    async def close(self) -> None:
        """Closes both."""
        self.forget_http()
        await self._channel.close()


class PeerConnections:
    """Connections to peers; an async context manager. down: the limit of chunks that are received."""

    def __init__(self, down: RateLimit | None = None, max_open: int = MAX_OPEN_CONNECTIONS) -> None:
        self._down = down or RateLimit(None)
        self._max_open = max_open
        self._open: OrderedDict[Address, PeerConnection] = OrderedDict()

    @contextlib.asynccontextmanager
    async def to(self, address: Address) -> AsyncGenerator[PeerConnection, None]:
        """The connection to an address, until the end of the block. Costs nothing when there is one already."""
        peer = self._open.get(address)
        if peer is None:
            peer = self._open[address] = PeerConnection(address, self._down)
        self._open.move_to_end(address)
        peer.users += 1
        try:
            yield peer
        finally:
            peer.users -= 1
            await self._close_unused()

    async def _close_unused(self) -> None:
        surplus = len(self._open) - self._max_open
        unused = [address for address, peer in self._open.items() if peer.users == 0]
        for address in unused[: max(0, surplus)]:
            await self._open.pop(address).close()

    async def aclose(self) -> None:
        """Closes every connection; calls in flight end with PeerUnavailableError."""
        while self._open:
            _, peer = self._open.popitem()
            await peer.close()

    async def __aenter__(self) -> "PeerConnections":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


@contextlib.asynccontextmanager
async def rpc_errors(address: Address) -> AsyncGenerator[None, None]:
    """Turns gRPC's errors inside the block into the peer's own, or into PeerUnavailableError."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        found = error_from_rpc(error, unavailable=PeerUnavailableError)
        if isinstance(found, InternalError) and error.code() is grpc.StatusCode.INTERNAL and _made_by_grpc(error):
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


def _made_by_grpc(error: grpc.aio.AioRpcError) -> bool:
    """Whether the error was made on this side, by gRPC itself: our servers always send a code of ours."""
    return not any(str(key).startswith("minga-") for key, _ in error.trailing_metadata() or ())
