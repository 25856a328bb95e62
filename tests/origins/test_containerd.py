"""Debian's containerd pulls through peers: as a node does, and while things break."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from tests.e2e.conftest import eventually
from tests.origins.containerd import Containerd, containerd
from tests.origins.networks import Mirrors, mirrors
from tests.origins.programs import run
from tests.origins.registry import USER, DockerRegistry, docker_registry, layer_of

pytestmark = pytest.mark.e2e

MIB, GIB = 1 << 20, 1 << 30
ZEROS = "sha256:7f06c62352aebd8125b2a1841e2b9e1ffcbed602f381c3dcb3200200e383d1d5"
"""Of 5 GiB of zeros."""


@dataclass
class Cluster:
    """Starts what a test needs; all of it ends with the test."""

    folder: Path
    stack: AsyncExitStack
    nodes: list[Containerd] = field(default_factory=list)

    async def registry(self, *, private: bool = False) -> DockerRegistry:
        return await self.stack.enter_async_context(docker_registry(self.folder / "registry", private=private))

    async def peers(self, registry: DockerRegistry, count: int = 1, *flags: str, nodes: int = 1) -> Mirrors:
        """Peers, and as many containerds, each with the peer of its number."""
        found = await self.stack.enter_async_context(mirrors(self.folder / "net", registry, count, flags))
        for number in range(nodes):
            node = await self.stack.enter_async_context(containerd(self.folder / f"node-{number}"))
            await found.install(node, number)
            self.nodes.append(node)
        return found


@pytest.fixture(name="cluster")
async def _cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with AsyncExitStack() as stack:
        yield Cluster(tmp_path, stack)


async def test_the_registry_sends_one_copy_to_three_nodes_at_once(cluster: Cluster) -> None:
    """One peer fetches, the others have it from there while it comes: layers that are swarmed, and small ones."""
    registry = await cluster.registry()
    layers = [layer_of(a=os.urandom(9 * MIB)), layer_of(b=os.urandom(5 * MIB)), layer_of(c=b"c"), b"1"]
    image = registry.push("lib/x", "1", layers)
    await cluster.peers(registry, 3, nodes=3)
    await asyncio.gather(*(node.fetch(f"{registry.name}/lib/x:1") for node in cluster.nodes))
    for node in cluster.nodes:
        assert [node.blob(digest) for digest in image.layers] == layers
    # One that is so small that it is over before anybody hears of it may be fetched twice.
    assert sum(registry.sent_bytes(digest) for digest in image.layers) <= 1.05 * sum(map(len, layers))


async def test_what_was_installed_is_undone(cluster: Cluster) -> None:
    """The next pull goes to the registry alone, as before."""
    registry = await cluster.registry()
    image = registry.push("lib/x", "1", [layer_of(a=os.urandom(MIB))])
    found = await cluster.peers(registry)
    await found.uninstall(cluster.nodes[0])
    await cluster.nodes[0].pull(f"{registry.name}/lib/x:1")
    await registry.sent_once(image.layers[0])
    assert not any("minga" in agent for agent in registry.agents())


async def test_a_stopped_peer_costs_nothing(cluster: Cluster) -> None:
    """Its port refuses at once, and containerd goes to the registry."""
    registry = await cluster.registry()
    image = registry.push("lib/x", "1", [layer_of(a=os.urandom(MIB))])
    found = await cluster.peers(registry)
    found.peers[0].kill()
    await cluster.nodes[0].pull(f"{registry.name}/lib/x:1")
    await registry.sent_once(image.layers[0])


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
async def test_a_peer_that_ends_in_the_middle_of_a_layer(cluster: Cluster, number: signal.Signals) -> None:
    """containerd takes the rest from the registry, by a range."""
    registry = await cluster.registry()
    layers = [layer_of(a=os.urandom(24 * MIB))]
    image = registry.push("lib/x", "1", layers)
    found = await cluster.peers(registry, 1, "--limit-down", "4MiB/s")
    node, part = cluster.nodes[0], cluster.folder / "node-0/root/io.containerd.content.v1.content/ingest"
    pulling = asyncio.create_task(node.fetch(f"{registry.name}/lib/x:1"))
    await eventually(lambda: _has_bytes(part, 4 * MIB), "some of the layer is there")
    os.kill(found.peers[0].pid, number)
    if number is signal.SIGSTOP:
        await asyncio.sleep(1)
        os.kill(found.peers[0].pid, signal.SIGKILL)
    await pulling
    assert [node.blob(digest) for digest in image.layers] == layers


async def _has_bytes(folder: Path, count: int) -> bool:
    return _largest(folder) >= count


def _largest(folder: Path) -> int:
    return max((path.stat().st_size for path in folder.glob("*/data")), default=0)


async def test_a_layer_that_is_wrong_at_the_registry(cluster: Cluster) -> None:
    """No client gets all of it from a peer, and no peer keeps it; containerd finds it wrong at the registry too."""
    registry = await cluster.registry()
    good = layer_of(a=os.urandom(3 * MIB))
    image = registry.push("lib/x", "1", [good])
    registry.blob_file(image.layers[0]).write_bytes(good[:MIB] + bytes(1000) + good[MIB + 1000 :])
    found = await cluster.peers(registry)
    received = 0
    place = f"{found.urls[0]}/v2/lib/x/blobs/{image.layers[0]}?ns={registry.name}"
    async with httpx.AsyncClient(timeout=60) as client:
        with suppress(httpx.HTTPError):
            async with client.stream("GET", place) as answer:
                received += sum([len(piece) async for piece in answer.aiter_raw()])
    assert received < len(good)
    printed = await cluster.nodes[0].fetch(f"{registry.name}/lib/x:1", code=1)
    assert "unexpected commit digest" in printed
    kept = found.peers[0].share_dir / "origins/sha256" / image.layers[0].removeprefix("sha256:")
    assert not kept.exists()


async def test_a_tag_that_moves(cluster: Cluster) -> None:
    """Each pull gets what the registry has under it then, also where peers resolve tags."""
    registry = await cluster.registry()
    found = await cluster.peers(registry)
    for options in ((), ("--resolve",)):
        await found.install(cluster.nodes[0], 0, *options)
        for _ in range(2):
            image = registry.push("lib/x", "latest", [layer_of(a=os.urandom(1000))])
            await cluster.nodes[0].pull(f"{registry.name}/lib/x:latest")
            assert await cluster.nodes[0].target(f"{registry.name}/lib/x:latest") == image.digest
            await registry.sent_once(image.layers[0])


async def test_a_private_image_is_pulled_by_the_clients_own_rights(cluster: Cluster) -> None:
    """The mirror has none: it says that it has nothing, keeps nothing, and whoever has no password gets nothing."""
    registry = await cluster.registry(private=True)
    layers = [layer_of(a=os.urandom(MIB))]
    image = registry.push("lib/x", "1", layers)
    found = await cluster.peers(registry)
    await cluster.nodes[0].fetch(f"{registry.name}/lib/x:1", "--user", ":".join(USER))
    assert cluster.nodes[0].blob(image.layers[0]) == layers[0]
    assert not (found.peers[0].share_dir / "origins").exists()
    async with httpx.AsyncClient(base_url=found.urls[0], params={"ns": registry.name}) as client:
        for path in (f"manifests/{image.digest}", "manifests/1", f"blobs/{image.layers[0]}"):
            answer = await client.get(f"/v2/lib/x/{path}", auth=USER)
            assert answer.status_code == 404


# What it is for is its size: most of a minute where nothing else runs.
@pytest.mark.timeout(900)
async def test_a_large_sparse_layer(cluster: Cluster) -> None:
    """5 GiB of zeros, which is more than 32 bits can count: curl gets all of it, and any part of it."""
    registry = await cluster.registry()
    registry.place_zeros("lib/x", 5 * GIB, ZEROS)
    found = await cluster.peers(registry, nodes=0)
    place = f"{found.urls[0]}/v2/lib/x/blobs/{ZEROS}?ns={registry.name}"
    get = ("-q", "-sS", "--fail", "-o", "/dev/null", "-w", "%{http_code} %{size_download}", place)
    assert await run("curl", *get, seconds=600) == f"200 {5 * GIB}"
    assert await run("curl", "-r", f"{4 * GIB - 5}-{4 * GIB + 4}", *get) == "206 10"
    assert await run("curl", "-r", "-7", *get) == "206 7"
    # By several connections, each with a part.
    assert registry.sent_bytes(ZEROS) <= 1.05 * 5 * GIB
    # Not to be kept with what other tests leave.
    (found.peers[0].share_dir / "origins/sha256" / ZEROS.removeprefix("sha256:")).unlink()
