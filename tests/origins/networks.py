"""Peers that mirror one registry, each with a containerd of its own where that is wanted."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from minga.control import ControlClient
from minga_cli.localnet import LocalNetwork, LocalNetworkConfig, LocalPeer
from minga_cli.localprocess import module_command
from tests.e2e.conftest import LEASE
from tests.origins.containerd import Containerd
from tests.origins.programs import run
from tests.origins.registry import DockerRegistry


@dataclass(frozen=True, slots=True)
class Mirrors:
    """A running network. urls: of the gateways, in the order of the peers."""

    net: LocalNetwork
    registry: DockerRegistry
    urls: tuple[str, ...]

    @property
    def peers(self) -> list[LocalPeer]:
        """The peers."""
        return self.net.peers

    async def install(self, node: Containerd, peer: int, *options: str) -> None:
        """Have a containerd pull through a peer, by our command."""
        flags = ("--dir", str(node.certs), "--mirror", self.urls[peer])
        await run(*module_command("minga_cli", "containerd", "install", self.registry.url, *flags, *options))

    async def uninstall(self, node: Containerd) -> None:
        """Undo that, by our command."""
        await run(*module_command("minga_cli", "containerd", "uninstall", self.registry.url, "--dir", str(node.certs)))


@asynccontextmanager
async def mirrors(
    folder: Path, registry: DockerRegistry, peer_count: int, flags: Sequence[str] = (), *, secure: bool = False
) -> AsyncIterator[Mirrors]:
    """Peers that mirror that registry. secure: of a network with certificates and grants."""
    async with gateways(folder, peer_count, ("--images", registry.url, *flags), secure=secure) as (net, urls):
        yield Mirrors(net, registry, urls)


@asynccontextmanager
async def gateways(
    folder: Path, peer_count: int, flags: Sequence[str], *, secure: bool = False
) -> AsyncIterator[tuple[LocalNetwork, tuple[str, ...]]]:
    """A network, and the URLs of its peers' gateways."""
    config = LocalNetworkConfig(
        peer_count=peer_count,
        directory=folder,
        lease_ttl=LEASE,
        secure=secure,
        peer_flags=("--gateway", "127.0.0.1:0", *flags),
    )
    async with LocalNetwork(config) as net:
        await net.wait_ready()
        urls = []
        for peer in net.peers:
            async with ControlClient(peer.control) as control:
                urls.append((await control.status()).gateway_url)
        yield net, tuple(urls)
