"""Peers that stop or die in the middle of a layer: a pull ends well, soon, whichever client pulls."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import httpx
import pytest

from minga_cli.localnet import LocalPeer
from tests.e2e.conftest import eventually
from tests.origins.containerd import containerd
from tests.origins.networks import Mirrors, mirrors
from tests.origins.podman import Podman
from tests.origins.registry import Image, docker_registry, layer_of

pytestmark = pytest.mark.e2e

MIB = 1024 * 1024
LAYER = layer_of(a=os.urandom(24 * MIB))
STALL_SECONDS = 60.0
"""Of a pull: its clients wait for minutes, and some for ever."""


@asynccontextmanager
async def slow_mirrors(folder: Path, count: int) -> AsyncIterator[tuple[Mirrors, Image]]:
    """Peers that need some seconds for a layer."""
    async with docker_registry(folder / "registry") as registry:
        image = registry.push("lib/x", "1", [LAYER])
        async with mirrors(folder / "net", registry, count, ("--limit-down", "6MiB/s")) as found:
            yield found, image


def held_bytes(peer: LocalPeer) -> int:
    """What is on its disk of what still comes."""
    return sum(path.stat().st_blocks * 512 for path in (peer.share_dir / ".minga/parts").glob("*.data"))


async def has_some(peer: LocalPeer) -> None:
    async def some() -> bool:
        with suppress(FileNotFoundError):
            return held_bytes(peer) >= 6 * MIB
        return False

    await eventually(some, "some of the layer is there")


async def pull(client: str, folder: Path, found: Mirrors, peer: int) -> None:
    """Pull through a peer, by containerd or podman: without a stall."""
    async with asyncio.timeout(STALL_SECONDS):
        if client == "podman":
            with Podman(folder, found.registry.name, found.urls[peer]) as podman:
                assert await podman.pull("lib/x:1")
            return
        async with containerd(folder / "node") as node:
            await found.install(node, peer)
            await node.pull(f"{found.registry.name}/lib/x:1")


@pytest.mark.parametrize(
    ("client", "number"), [("containerd", signal.SIGSTOP), ("podman", signal.SIGSTOP), ("podman", signal.SIGKILL)]
)
async def test_the_peer_that_fetches_ends_in_the_middle_of_a_layer(
    tmp_path: Path, client: str, number: signal.Signals
) -> None:
    """The one that a client asks is another: it takes over from the stopped one, which says nothing any more, too."""
    async with slow_mirrors(tmp_path, 2) as (found, image):
        path = f"{found.urls[0]}/v2/lib/x/blobs/{image.layers[0]}?ns={found.registry.name}"
        async with httpx.AsyncClient(timeout=60) as http:
            fetching = asyncio.create_task(http.get(path))

            async def begun() -> bool:
                return held_bytes(found.peers[0]) > 0

            await eventually(begun, "the first peer fetches")
            pulling = asyncio.create_task(pull(client, tmp_path, found, 1))
            await has_some(found.peers[1])
            os.kill(found.peers[0].pid, number)
            try:
                await pulling
            finally:
                if number is signal.SIGSTOP:
                    os.kill(found.peers[0].pid, signal.SIGCONT)
            fetching.cancel()
            await asyncio.gather(fetching, return_exceptions=True)


async def test_the_peer_that_is_asked_dies_in_the_middle_of_a_layer(tmp_path: Path) -> None:
    """podman 4.3 gives up at once what broke off, whoever sends it; its next pull is the registry's. containerd goes on
    there by itself: see test_containerd."""
    async with slow_mirrors(tmp_path, 1) as (found, _), asyncio.timeout(STALL_SECONDS):
        with Podman(tmp_path, found.registry.name, found.urls[0]) as podman:
            pulling = asyncio.create_task(podman.pull("lib/x:1"))
            await has_some(found.peers[0])
            found.peers[0].kill()
            with suppress(AssertionError):
                await pulling
            assert await podman.pull("lib/x:1")
