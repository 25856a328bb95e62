"""A network that has IPv6 alone."""

import socket
from pathlib import Path

import pytest

from minga import AsyncClient
from minga_cli.localnet import LocalNetwork, LocalNetworkConfig

from .conftest import LEASE

pytestmark = pytest.mark.e2e


def has_ipv6() -> bool:
    """Whether this machine has the loopback address."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")
async def test_a_file_is_put_found_and_fetched_over_ipv6(tmp_path: Path) -> None:
    """Chunks, which have a port of their own, included; by a daemon, and without one."""
    content = bytes(range(256)) * 20_000
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
