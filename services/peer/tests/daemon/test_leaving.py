"""The last thing that a daemon says to the registry."""

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

SECONDS_FOR_A_MISTAKE = 1.0
"""Twenty heartbeats."""


class Forgetful(FakeRegistry):
    """Has forgotten the peer, and takes its time over a farewell: whoever still speaks then takes the lease again."""

    def __init__(self) -> None:
        super().__init__()
        self.left = False
        self.spoke_after = asyncio.Event()

    async def Register(self, request: pb.RegisterRequest, context: Any) -> pb.RegisterResponse:
        if self.left:
            self.spoke_after.set()
        return await super().Register(request, context)

    async def Leave(self, request: pb.LeaveRequest, context: Any) -> pb.LeaveResponse:
        self.left = True
        self.registered = False
        with suppress(TimeoutError):
            async with asyncio.timeout(SECONDS_FOR_A_MISTAKE):
                await self.spoke_after.wait()
        return pb.LeaveResponse()


async def test_a_peer_that_has_left_does_not_take_its_lease_again(tmp_path: Path) -> None:
    """Not even one that the registry has forgotten: it would be listed until the lease ends, and be gone."""
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
        async with running_daemon(settings):
            async with asyncio.timeout(20):
                while not registry.registered:  # noqa: ASYNC110 - the condition belongs to a server
                    await asyncio.sleep(0.005)
            registry.forget()
        assert registry.left
        assert not registry.spoke_after.is_set()
        assert not registry.registered
    finally:
        await server.stop(timedelta(0))
