"""Registries as Docker Hub, GHCR and Quay are: a token for everything, also for nobody's, and blobs on another host."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.origins.containerd import containerd
from tests.origins.networks import Mirrors, mirrors
from tests.origins.podman import Podman
from tests.origins.registry import USER, DockerRegistry, Image, docker_registry, layer_of
from tests.origins.tokens import PUBLIC, TokenServer, token_server
from tests.support.origin import Origin, origin

pytestmark = pytest.mark.e2e

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Public:
    """A registry with its two neighbours. cdn: has its blobs."""

    registry: DockerRegistry
    tokens: TokenServer
    cdn: Origin

    def push(self, repository: str, *layers: bytes) -> Image:
        """An image, whose blobs the other host has."""
        image = self.registry.push(repository, "1", layers)
        self.cdn.files |= self.registry.blobs()
        return image

    def asked_by(self, agent: str) -> list[dict[str, str]]:
        """The headers of requests to the other host, by what clients call themselves."""
        return [each.headers for each in self.cdn.requests if agent in each.headers["user-agent"]]


@asynccontextmanager
async def public(folder: Path) -> AsyncIterator[Public]:
    """One that runs."""
    async with (
        token_server(USER) as tokens,
        origin() as cdn,
        docker_registry(folder / "registry", tokens=tokens, blobs_at=cdn.url) as registry,
    ):
        yield Public(registry, tokens, cdn)


@asynccontextmanager
async def peers(folder: Path, place: Public, count: int, *allowed: str) -> AsyncIterator[Mirrors]:
    """Peers in front of it. allowed: where else than to the registry they may go in this network."""
    async with mirrors(folder / "net", place.registry, count, ("--fetch-allow", ",".join(allowed))) as found:
        yield found


@pytest.mark.parametrize("no_head", [False, True])
async def test_one_copy_leaves_the_host_that_a_registry_redirects_to(tmp_path: Path, no_head: bool) -> None:
    """Two containerds at once. The peers go there themselves, by a token that anybody is given, which that host never
    sees; some of them answer GET alone."""
    async with public(tmp_path) as place, AsyncExitStack() as stack:
        layers = [layer_of(a=os.urandom(9 * MIB)), layer_of(b=os.urandom(1000))]
        image = place.push(f"{PUBLIC}x", *layers)
        place.cdn.faults.no_head = no_head
        found = await stack.enter_async_context(peers(tmp_path, place, 2, place.tokens.url, place.cdn.url))
        nodes = [await stack.enter_async_context(containerd(tmp_path / f"node-{number}")) for number in (0, 1)]
        for number, node in enumerate(nodes):
            await found.install(node, number)
        await asyncio.gather(*(node.fetch(f"{place.registry.name}/{PUBLIC}x:1") for node in nodes))
        for node in nodes:
            assert [node.blob(digest) for digest in image.layers] == layers
        assert place.cdn.sent_bytes <= 1.05 * sum(map(len, place.registry.blobs().values()))
        assert place.cdn.requests
        assert len(place.asked_by("minga")) == len(place.cdn.requests)
        assert not any("authorization" in each for each in place.asked_by("minga"))
        assert not any("authorization" in each for each in place.tokens.asked)


async def test_a_registry_does_not_lead_a_peer_into_its_own_network(tmp_path: Path) -> None:
    """An address that nobody named is not asked, whoever redirects there: the client goes itself."""
    async with (
        public(tmp_path) as place,
        peers(tmp_path, place, 1, place.tokens.url) as found,
        containerd(tmp_path / "node") as node,
    ):
        layers = [layer_of(a=os.urandom(MIB))]
        image = place.push(f"{PUBLIC}x", *layers)
        await found.install(node, 0)
        await node.fetch(f"{place.registry.name}/{PUBLIC}x:1")
        assert node.blob(image.layers[0]) == layers[0]
        assert place.asked_by("containerd")
        assert not place.asked_by("minga")


@pytest.mark.parametrize("refuses", [False, True])
async def test_a_private_image_is_pulled_by_the_clients_own_token(tmp_path: Path, refuses: bool) -> None:
    """By containerd and by podman. The peer asks as nobody, has nothing, and sees no credentials; what it does not have
    is not asked for once more for each layer."""
    async with (
        public(tmp_path) as place,
        peers(tmp_path, place, 1, place.tokens.url, place.cdn.url) as found,
        containerd(tmp_path / "node") as node,
    ):
        place.tokens.refuses = refuses
        layers = [layer_of(a=os.urandom(MIB)), layer_of(b=os.urandom(1000))]
        image = place.push("own/x", *layers)
        await found.install(node, 0)
        await node.fetch(f"{place.registry.name}/own/x:1", "--user", ":".join(USER))
        assert [node.blob(digest) for digest in image.layers] == layers
        with Podman(tmp_path, place.registry.name, found.urls[0]) as podman:
            assert await podman.pull("own/x:1", "--creds", ":".join(USER))
        of_peers = [each for each in place.tokens.asked if "minga" in each["user-agent"]]
        # Once a minute, whatever is asked for.
        assert 1 <= len(of_peers) <= 3
        assert not any("authorization" in each for each in of_peers)
        assert not place.asked_by("minga")
        assert not (found.peers[0].share_dir / "origins").exists()
        async with httpx.AsyncClient(base_url=found.urls[0], params={"ns": place.registry.name}) as client:
            answer = await client.get(f"/v2/own/x/blobs/{image.layers[0]}", auth=USER)
            assert answer.status_code == 404
