"""Connections to peers: one gRPC channel and one HTTP client for each address, shared by all transfers."""

import contextlib
from collections import OrderedDict
from collections.abc import AsyncGenerator
from contextlib import AbstractContextManager
from types import TracebackType

import grpc
import grpc.aio

from minga_core.errors import PeerUnavailableError
from minga_core.ids import Address, PeerId
from minga_engine.wire.http_client import HttpPeer
from minga_engine.wire.messages import SourceAddress, parse_http_port
from minga_engine.wire.peer_tls import PeerTls
from minga_protos.peer.v1.peer_pb2_grpc import PeerServiceStub
from minga_runtime.channels import make_channel
from minga_runtime.grpc_errors import rpc_errors
from minga_runtime.rate_limit import RateLimit
from minga_runtime.trust.credentials import Credentials
from minga_runtime.trust.own_grant import OwnGrant, metadata_of

MAX_OPEN_CONNECTIONS = 64
"""Unused connections above this are closed, least recently used first. Above a swarm's sources and a folder's
holders."""


class PeerConnection:
    """The gRPC channel and the HTTP client of one peer. Only for use inside `PeerConnections.to`."""

    def __init__(self, address: Address, down: RateLimit, tls: PeerTls | None) -> None:
        self.address = address
        self.users = 0
        self.tls = tls
        self._down = down
        loaded, name = (None, "") if tls is None else (tls.loaded, tls.server_name)
        self._channel = make_channel(address, loaded, name, reconnects=False)
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
            self._http = HttpPeer(address, self._down, self.tls)
        return self._http

    def forget_http(self) -> None:
        """Closes the HTTP client: its port cannot be reached, and may have changed."""
        if self._http is not None:
            self._http.close()
            self._http = None

    def broken(self) -> bool:
        """Whether the channel could not connect, and dials again after ever longer pauses."""
        return self._channel.get_state() is grpc.ChannelConnectivity.TRANSIENT_FAILURE

    async def close(self) -> None:
        """Closes both."""
        self.forget_http()
        await self._channel.close()


_Key = tuple[Address, PeerId | None]


class PeerConnections:
    """Connections to peers; an async context manager. down: the limit of chunks that are received. credentials: with
    them TLS is spoken, and a peer must be the one that it was named. grant: shown to peers that are sent a file."""

    def __init__(
        self,
        down: RateLimit | None = None,
        max_open: int = MAX_OPEN_CONNECTIONS,
        credentials: Credentials | None = None,
        grant: OwnGrant | None = None,
    ) -> None:
        self._grant = grant
        self._down = down or RateLimit(None)
        self._max_open = max_open
        self._credentials = credentials
        self._open: OrderedDict[_Key, PeerConnection] = OrderedDict()
        self._replaced: set[PeerConnection] = set()

    @contextlib.asynccontextmanager
    async def to(self, source: SourceAddress) -> AsyncGenerator[PeerConnection, None]:
        """The connection to a peer, until the end of the block. Costs nothing when there is one already."""
        key = (source.address, source.peer_id if self._credentials else None)
        loaded = await self._credentials.towards(source.address) if self._credentials else None
        peer = self._current(key, None if loaded is None else PeerTls(loaded, source.peer_id))
        peer.users += 1
        try:
            yield peer
        finally:
            peer.users -= 1
            self._retire(key)
            if self._replaced or len(self._open) > self._max_open:
                await self._close_unused()

    def grant_metadata(self, peer: PeerConnection) -> tuple[tuple[str, str], ...]:
        """What shows the grant, in calls that need one; empty without one, and without TLS."""
        return () if peer.tls is None else metadata_of(self._grant)

    def _current(self, key: _Key, tls: PeerTls | None) -> PeerConnection:
        """The connection with the present credentials. Raises PeerUnavailableError for a peer that is revoked."""
        self._retire(key)
        peer = self._open.get(key)
        if peer is not None and peer.tls != tls:
            self._replaced.add(self._open.pop(key))
            peer = None
        if peer is None:
            peer = self._open[key] = PeerConnection(key[0], self._down, tls)
        self._open.move_to_end(key)
        if peer.tls is not None:
            peer.tls.check_not_revoked()
        return peer

    def _retire(self, key: _Key) -> None:
        """Have a connection closed once nobody uses it: one of earlier credentials, or one that could not be made."""
        peer = self._open.get(key)
        if peer is None:
            return
        renewed = peer.tls is not None and self._credentials and peer.tls.loaded is not self._credentials.current()
        if renewed or (peer.users == 0 and peer.broken()):
            self._replaced.add(self._open.pop(key))

    async def _close_unused(self) -> None:
        for replaced in [peer for peer in self._replaced if peer.users == 0]:
            self._replaced.discard(replaced)
            await replaced.close()
        surplus = len(self._open) - self._max_open
        unused = [key for key, peer in self._open.items() if peer.users == 0]
        for key in unused[: max(0, surplus)]:
            await self._open.pop(key).close()

    async def aclose(self) -> None:
        """Closes every connection; calls in flight end with PeerUnavailableError."""
        while self._open:
            _, peer = self._open.popitem()
            await peer.close()
        while self._replaced:
            await self._replaced.pop().close()

    async def __aenter__(self) -> "PeerConnections":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


def peer_errors(address: Address) -> AbstractContextManager[None]:
    """Turns gRPC's errors inside the block into the peer's own, or into PeerUnavailableError."""
    return rpc_errors(str(address), PeerUnavailableError)
