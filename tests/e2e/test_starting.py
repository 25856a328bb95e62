"""Parts that start before what they depend on: they wait, say so, and go on by themselves."""

import asyncio
import signal
from pathlib import Path

import pytest

from minga.control import ControlClient, DaemonStatus
from minga_cli.localnet import LocalNetwork, LocalNetworkConfig
from minga_cli.localprocess import module_command
from minga_core.errors import MingaError

from .conftest import LEASE, LIMIT_SECONDS, eventually

pytestmark = pytest.mark.e2e


async def status_of(control: Path) -> DaemonStatus | None:
    """The daemon's status; None while there is none."""
    try:
        async with ControlClient(control) as client:
            return await client.status()
    except MingaError:
        return None


async def test_a_peer_without_registry_and_locator_shares_later(tmp_path: Path) -> None:
    """1. It starts, and says what it waits for. 2. The network appears. 3. Its files are found. 4. SIGTERM ends it."""
    config = LocalNetworkConfig(peer_count=0, directory=tmp_path / "net", lease_ttl=LEASE)
    async with LocalNetwork(config) as net:
        net.registry.kill()
        net.locator.kill()
        net.redis.kill()
        share, control = tmp_path / "share", tmp_path / "control.sock"
        share.mkdir()
        (share / "early.txt").write_text("here before anybody")
        peer = await asyncio.create_subprocess_exec(
            *module_command("minga_cli", "--locator", net.locator_url, "--control", str(control)),
            *("peer", "--share", str(share), "--registry", net.registry_address, "--listen", "127.0.0.1:0"),
            stdout=asyncio.subprocess.PIPE,
        )
        try:

            async def waits() -> bool:
                status = await status_of(control)
                return status is not None and [each.kind for each in status.conditions] == ["registry_away"]

            await eventually(waits, "it says what it waits for")
            assert peer.returncode is None
            for part in (net.redis, net.registry, net.locator):
                await part.restart()

            async def registered() -> bool:
                status = await status_of(control)
                return status is not None and status.registered and status.announced_revision == status.table_revision

            await eventually(registered, "it is registered, and its table is announced")
        finally:
            peer.send_signal(signal.SIGTERM)
            output, _ = await peer.communicate()
        assert peer.returncode == 0
        lines = [line for line in output.decode().splitlines() if "condition_began" in line]
        assert len(lines) == 1, "an outage is logged once, not at every attempt"


async def test_a_download_through_a_daemon_without_a_locator_fails_with_one_clear_error(tmp_path: Path) -> None:
    """Neither a hang nor a traceback."""
    config = LocalNetworkConfig(peer_count=1, directory=tmp_path / "net", lease_ttl=LEASE)
    async with LocalNetwork(config) as net:
        await net.wait_ready()
        net.locator.kill()
        process = await asyncio.create_subprocess_exec(
            *module_command("minga_cli", "--locator", net.locator_url, "--control", str(net.peers[0].control)),
            *("get", "nothing.bin"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(LIMIT_SECONDS):
            _, errors = await process.communicate()
        assert process.returncode == 5
        assert errors.decode().count("\n") == 1
        assert "locator" in errors.decode()
