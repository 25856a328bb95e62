"""The last call that a daemon makes to the registry."""

import asyncio
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from minga_peer.daemon.main import running_daemon
from minga_peer.settings import PeerSettings
from minga_protos.registry.v1 import registry_pb2 as pb
from minga_protos.registry.v1.registry_pb2_grpc import add_RegistryServiceServicer_to_server
from minga_runtime.metrics import RpcMetrics
from minga_runtime.server import GrpcServer
from minga_runtime.settings import load_settings

from .test_announcer import FakeRegistry

LEAVE_SECONDS = 1.0
"""Twenty heartbeats."""


class Forgetful(FakeRegistry):
    """Has forgotten the peer, and is slow to answer Leave: a loop that still runs then takes the lease again."""

    def __init__(self) -> None:
        super().__init__()
        self.left = False
        self.registered_again = asyncio.Event()

    async def Register(self, request: pb.RegisterRequest, context: Any) -> pb.RegisterResponse:
        if self.left:
            self.registered_again.set()
        return await super().Register(request, context)

    async def Leave(self, request: pb.LeaveRequest, context: Any) -> pb.LeaveResponse:
        self.left = True
        self.registered = False
        with suppress(TimeoutError):
            async with asyncio.timeout(LEAVE_SECONDS):
                await self.registered_again.wait()
        return pb.LeaveResponse()


async def test_a_peer_that_has_left_does_not_take_its_lease_again(tmp_path: Path) -> None:
    """Not even one that the registry has forgotten: it would be listed until the lease ends, and be away."""
    registry = Forgetful()
    server = GrpcServer(RpcMetrics(CollectorRegistry(), "registry"))
    add_RegistryServiceServicer_to_server(registry, server.server)
    (port,) = await server.start(["127.0.0.1:0"], ["minga.registry.v1.RegistryService"])
    (tmp_path / "share").mkdir()
    settings = load_settings(
        PeerSettings,
        share_dir=tmp_path / "share",
        peer_id="p",
        listen="127.0.0.1:0",
        registry=f"127.0.0.1:{port}",
        locator="http://127.0.0.1:1",
        control=tmp_path / "control",
    )
    try:
        async with running_daemon(settings) as daemon:
            async with asyncio.timeout(20):
                while not daemon.announcer.registered:  # noqa: ASYNC110 - the condition belongs to a server
                    await asyncio.sleep(0.005)
            registry.forget()
        assert registry.left
        assert not registry.registered_again.is_set()
        assert not registry.registered
    finally:
        await server.stop(timedelta(0))
