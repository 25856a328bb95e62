"""What several of the runtime's tests need: an observer, and a server of plain handlers."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import grpc

from minga_runtime.server import GrpcServer

SERVICE = "example.v1.ExampleService"
LIMIT_SECONDS = 20.0


class Observed:
    """An RpcObserver that keeps what it received."""

    def __init__(self) -> None:
        self._ended: list[tuple[str, str]] = []
        self._changed = asyncio.Event()

    def rpc_ended(self, method: str, code: str, seconds: float) -> None:
        """See RpcObserver."""
        assert seconds >= 0
        self._ended.append((method, code))
        self._changed.set()

    async def ended(self, count: int) -> list[tuple[str, str]]:
        """What has ended, once that many have: a client gets its answer before the observer."""
        async with asyncio.timeout(LIMIT_SECONDS):
            while len(self._ended) < count:
                self._changed.clear()
                await self._changed.wait()
        return self._ended


def server_of(handlers: dict[str, Any], observer: Observed | None = None, **options: Any) -> GrpcServer:
    """A server whose SERVICE has these methods: RPC handlers, or functions for the unary ones and for streams."""
    server = GrpcServer(observer or Observed(), **options)
    made = {
        name: handler if hasattr(handler, "unary_unary") else _handler(handler) for name, handler in handlers.items()
    }
    server.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, made),))
    return server


def _handler(behaviour: Callable[..., Any]) -> Any:
    unary = asyncio.iscoroutinefunction(behaviour)
    make = grpc.unary_unary_rpc_method_handler if unary else grpc.unary_stream_rpc_method_handler
    return make(behaviour)


@asynccontextmanager
async def serving(server: GrpcServer) -> AsyncIterator[int]:
    """Runs a server on a free port of the loopback; the port."""
    (port,) = await server.start(["127.0.0.1:0"], [SERVICE])
    try:
        yield port
    finally:
        await server.stop(timedelta(0))


async def answer(channel: grpc.aio.Channel, request: bytes = b"", method: str = "Answer") -> bytes:
    """A unary call."""
    got: bytes = await channel.unary_unary(f"/{SERVICE}/{method}")(request, timeout=LIMIT_SECONDS)
    return got


async def streamed(channel: grpc.aio.Channel, request: bytes = b"", method: str = "Stream") -> list[bytes]:
    """A streaming call, to its end."""
    return [item async for item in channel.unary_stream(f"/{SERVICE}/{method}")(request, timeout=LIMIT_SECONDS)]
