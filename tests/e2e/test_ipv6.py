"""A network that is reached by IPv6 alone."""

import asyncio
import socket
from pathlib import Path

import psutil
import pytest

from minga import AsyncClient
from minga_cli.localnet import LocalNetwork, LocalNetworkConfig

from .conftest import LEASE, noise, running


def _has_ipv6() -> bool:
    """Whether this machine has the loopback address."""
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            return False
    return True


pytestmark = [pytest.mark.e2e, pytest.mark.skipif(not _has_ipv6(), reason="this machine has no IPv6")]


async def test_a_file_is_put_found_and_fetched_over_ipv6(tmp_path: Path) -> None:
    """Chunks, which have a port of their own, included; by a daemon, and without one."""
    content = noise(5_000_000)
    (tmp_path / "file").write_bytes(content)
    config = LocalNetworkConfig(peer_count=2, directory=tmp_path / "net", lease_ttl=LEASE, host="[::1]")
    async with LocalNetwork(config) as net:
        await net.wait_ready()
        for control in (tmp_path / "none", net.peers[0].control, net.peers[1].control):
            async with AsyncClient(locator=net.locator_url, control=control) as client:
                await client.put(tmp_path / "file", "file")
                assert (await client.info("file")).versions[0].sources[0].address.startswith("[::1]:")
                copy = tmp_path / control.name
                await client.get("file", copy)
                assert copy.read_bytes() == content


async def test_peers_that_listen_everywhere_serve_by_ipv6(tmp_path: Path) -> None:
    """1. Peers announce the address that faces the registry. 2. Both ways of fetching a chunk are open there."""
    async with running(tmp_path, 2, host="[::1]", peer_flags=("--listen", "0.0.0.0:0", "--open=1")) as story:
        first, second = story.peers
        data = noise(3 << 20)
        await story.share(first, "six.bin", data)
        version = await story.version("six.bin")
        assert version is not None
        assert version.sources[0].address.startswith("[::1]:")
        listening = [one for one in psutil.Process(first.pid).net_connections("tcp") if one.status == "LISTEN"]
        # The gateway is for this machine's programs alone.
        ports = {one.laddr.port for one in listening if one.laddr.ip != "127.0.0.1"}
        assert len(ports) == 2, "gRPC and HTTP"
        for port in ports:
            _, writer = await asyncio.open_connection("::1", port)
            writer.close()
        await story.download(second, "six.bin")
        assert (second.share_dir / "six.bin").read_bytes() == data
