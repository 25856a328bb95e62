"""The gRPC server of every part: error mapping, health, limits, graceful stop."""

import asyncio
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from minga_runtime.accepting import Listener
from minga_runtime.both import OpenConnections, relay
from minga_runtime.channels import bind, server_options, unix_path
from minga_runtime.descriptors import max_connections
from minga_runtime.grpc_errors import ErrorInterceptor, RefusalObserver, RpcObserver
from minga_runtime.host_share import HostShare
from minga_runtime.quotas import Quota
from minga_runtime.sockets import listen_tcp
from minga_runtime.trust.authorization import Access
from minga_runtime.trust.credentials import Credentials


@dataclass(frozen=True, slots=True)
class ConnectionAge:
    """The lifetime of connections. It lets servers that start later get their share of the clients."""

    limit: timedelta
    """After this a client is asked to reconnect, which loses no call; gRPC adds a jitter of a tenth."""
    grace: timedelta
    """Calls under way are aborted after this. Longer than any call may take."""


_INNER = "127.0.0.1:0"
"""Where a relay reaches a server: no more than everybody can on the port before it."""
LIVENESS = "liveness"
"""Health service name that is SERVING as long as the process runs, whatever the state of its dependencies."""

_Status = health_pb2.HealthCheckResponse


class GrpcServer:
    """A server with the standard health service. Services are registered with `server` before `start`.

    access: with it ports speak TLS, and callers are checked; Unix sockets are as without. refusals: records those that
    are refused."""

    def __init__(
        self,
        observer: RpcObserver,
        *,
        access: Access | None = None,
        refusals: RefusalObserver | None = None,
        max_concurrent_rpcs: int | None = None,
        connection_age: ConnectionAge | None = None,
    ) -> None:
        self.server = grpc.aio.server(
            interceptors=(ErrorInterceptor(observer, access, refusals),),
            options=[*server_options(), *_ageing(connection_age)],
            maximum_concurrent_rpcs=max_concurrent_rpcs,
        )
        self._credentials = None if access is None else access.credentials
        self._plain = None if access is None else access.plain
        self._relays: list[Listener] = []
        self._shares: list[asyncio.Task[None]] = []
        self._health = _Health()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self.server)
        self._services: tuple[str, ...] = ()
        self._sockets: list[Path] = []
        self._serving = False
        self._stopping = False

    async def start(self, listen: Sequence[str], services: Sequence[str]) -> list[int]:
        """Bind every address and serve. Returns the bound ports (1 for Unix sockets).

        services: full names, for health. Health is NOT_SERVING until `set_serving`. Raises what `bind`
        raises."""
        self._services = tuple(services)
        ports = [await self._bind(address) for address in listen]
        self._sockets = [path for address in listen if (path := unix_path(address)) is not None]
        await self._set_health(False)
        await self._health.set(LIVENESS, _Status.SERVING)
        await self.server.start()
        return ports

    async def _bind(self, listen: str) -> int:
        if self._credentials is None or self._plain is None or unix_path(listen) is not None:
            port = bind(self.server, listen, self._credentials)
            if unix_path(listen) is None:
                share = HostShare(port, max_connections())
                self._shares.append(asyncio.create_task(share.run(), name="host_share"))
            return port
        return await self._bind_both(listen, self._credentials, self._plain)

    async def _bind_both(self, listen: str, credentials: Credentials, plain: OpenConnections) -> int:
        """gRPC accepts connections by itself, and knows one kind for a port: so it has two, behind ours."""
        listener = await asyncio.to_thread(listen_tcp, listen)
        open_port, tls_port = bind(self.server, _INNER), bind(self.server, _INNER, credentials)

        async def serve(connection: socket.socket, tls: bool) -> None:
            await relay(connection, tls_port if tls else open_port)

        # One that is relayed has two descriptors.
        quota = Quota("connections", max_connections() // 2)
        self._relays.append(Listener(listener, serve, quota, plain=plain))
        port: int = listener.getsockname()[1]
        return port

    @property
    def serving(self) -> bool:
        """The answer to health checks."""
        return self._serving

    async def set_serving(self, serving: bool) -> None:
        """Set the answer to health checks. Without effect after `stop`."""
        if not self._stopping:
            self._serving = serving
            await self._set_health(serving)

    async def stop(self, grace: timedelta) -> None:
        """Turn health to NOT_SERVING, refuse new calls, and abort those that have not ended within the grace."""
        self._stopping = True
        self._serving = False
        await self._set_health(False)
        for each in self._relays:
            each.close()
        for share in self._shares:
            share.cancel()
        await asyncio.gather(*self._shares, return_exceptions=True)
        await self.server.stop(grace.total_seconds())
        for each in self._relays:
            await each.wait_closed()
        _remove(self._sockets)

    async def _set_health(self, serving: bool) -> None:
        status = _Status.SERVING if serving else _Status.NOT_SERVING
        for name in ("", *self._services):
            await self._health.set(name, status)


def _remove(sockets: Sequence[Path]) -> None:
    """Remove Unix sockets; those that cannot be removed are replaced by the next server."""
    for path in sockets:
        with suppress(OSError):
            path.unlink()


class _Health(health.aio.HealthServicer):
    """The standard health service without its stream: no limit counts streams that nothing ends, and one that its
    caller does not read keeps a lock that `set` waits for. Clients take UNIMPLEMENTED for healthy
    (github.com/grpc/grpc/blob/master/doc/health-checking.md)."""

    async def Watch(  # noqa: N802 - gRPC's name
        self, request: health_pb2.HealthCheckRequest, context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> None:
        """Refuse."""
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "ask with Check, now and then")


def _ageing(age: ConnectionAge | None) -> list[tuple[str, int]]:
    if age is None:
        return []
    return [
        ("grpc.max_connection_age_ms", int(age.limit.total_seconds() * 1000)),
        ("grpc.max_connection_age_grace_ms", int(age.grace.total_seconds() * 1000)),
    ]
