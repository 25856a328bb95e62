"""A gRPC server as all parts run it: error mapping, health, reflection, limits, graceful stop."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from minga_runtime.channels import bind, server_options
from minga_runtime.grpc_errors import ErrorInterceptor, RpcObserver


@dataclass(frozen=True, slots=True)
class ConnectionAge:
    """How long a client may stay on one connection, so that servers which come later get their share of the clients."""

    limit: timedelta
    """Then the client is asked to make another, which it does without losing a call; gRPC varies it by a tenth."""
    grace: timedelta
    """For the calls under way by then, after which they are cut off. Longer than any call may take."""


LIVENESS = "liveness"
"""Health service name that is SERVING as long as the process runs, whatever its dependencies do."""

_Status = health_pb2.HealthCheckResponse


class GrpcServer:
    """A server with its health. `server` is for registering services before `start`."""

    def __init__(
        self,
        observer: RpcObserver,
        *,
        max_concurrent_rpcs: int | None = None,
        connection_age: ConnectionAge | None = None,
    ) -> None:
        self.server = grpc.aio.server(
            interceptors=(ErrorInterceptor(observer),),
            options=[*server_options(), *_ageing(connection_age)],
            maximum_concurrent_rpcs=max_concurrent_rpcs,
        )
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self.server)
        self._services: tuple[str, ...] = ()
        self._serving = False
        self._stopping = False

    async def start(self, listen: Sequence[str], services: Sequence[str]) -> list[int]:
        """Binds every address and serves; the bound ports (1 for Unix sockets). services: full names, for health
        and reflection. Health is NOT_SERVING until `set_serving`. Raises what `bind` raises."""
        self._services = tuple(services)
        reflection.enable_server_reflection((*services, health.SERVICE_NAME, reflection.SERVICE_NAME), self.server)
        ports = [bind(self.server, address) for address in listen]
        await self._tell(False)
        await self._health.set(LIVENESS, _Status.SERVING)
        await self.server.start()
        return ports

    @property
    def serving(self) -> bool:
        """What health checks are told."""
        return self._serving

    async def set_serving(self, serving: bool) -> None:
        """Tells health checks whether the services can do their work. Without effect once `stop` was called."""
        if not self._stopping:
            self._serving = serving
            await self._tell(serving)

    async def stop(self, grace: timedelta) -> None:
        """NOT_SERVING at once; calls under way may end within the grace, new ones are refused."""
        self._stopping = True
        self._serving = False
        await self._tell(False)
        await self.server.stop(grace.total_seconds())

    async def _tell(self, serving: bool) -> None:
        status = _Status.SERVING if serving else _Status.NOT_SERVING
        for name in ("", *self._services):
            await self._health.set(name, status)


def _ageing(age: ConnectionAge | None) -> list[tuple[str, int]]:
    if age is None:
        return []
    return [
        ("grpc.max_connection_age_ms", int(age.limit.total_seconds() * 1000)),
        ("grpc.max_connection_age_grace_ms", int(age.grace.total_seconds() * 1000)),
    ]
