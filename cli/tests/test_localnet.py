"""The local network: its store, its ports, and that nothing is left of it."""

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from minga_cli.localnet import LocalNetwork, LocalNetworkConfig
from minga_core.errors import AlreadyRunningError, InvalidArgumentError
from tests.support.ports import free_ports

from .test_localprocess import exists

LIMIT_SECONDS = 60


@pytest.fixture
async def network(tmp_path: Path) -> AsyncIterator[LocalNetwork]:
    """A network of two peers, ready."""
    config = LocalNetworkConfig(peer_count=2, directory=tmp_path / "net")
    async with asyncio.timeout(LIMIT_SECONDS), LocalNetwork(config) as net:
        await net.wait_ready()
        yield net


@pytest.mark.e2e
async def test_a_network_is_there_and_gone(tmp_path: Path) -> None:
    """1. all processes run and the locator lists the peers; 2. afterwards none runs, and the folder is kept."""
    config = LocalNetworkConfig(peer_count=2, directory=tmp_path / "net")
    async with asyncio.timeout(LIMIT_SECONDS):
        async with LocalNetwork(config) as net:
            await net.wait_ready()
            pids = net.pids()
            assert len(pids) == 5
            assert all(map(exists, pids))
        assert not any(map(exists, pids))
    assert sorted(path.name for path in (tmp_path / "net").iterdir()) == ["logs", "peer-1", "peer-2"]


@pytest.mark.e2e
async def test_a_part_that_is_killed_comes_back_on_its_port(network: LocalNetwork) -> None:
    """Store, registry, locator and a peer, one after the other; every address stays; no death is reported."""
    addresses = [network.registry.address, network.locator.address, network.peers[0].address]
    for part in (network.redis, network.registry, network.locator, network.peers[0]):
        await part.restart()
    await network.wait_ready()
    assert addresses == [network.registry.address, network.locator.address, network.peers[0].address]
    assert not network.failed.done()


@pytest.mark.e2e
async def test_a_process_that_dies_unasked_is_told(network: LocalNetwork) -> None:
    """`failed` has its name."""
    os.kill(network.registry.pid, signal.SIGKILL)
    async with asyncio.timeout(10):
        assert str(await network.failed).startswith("registry ended with signal SIGKILL")


@pytest.mark.parametrize("config", [{"peer_count": 65}, {"peer_count": -1}, {"base_port": 65534}])
def test_impossible_networks_are_refused(config: dict[str, int]) -> None:
    """Before anything starts."""
    with pytest.raises(InvalidArgumentError):
        LocalNetwork(LocalNetworkConfig(**config))


async def test_a_taken_port_is_told_before_anything_starts(tmp_path: Path) -> None:
    """Which one, and what to do."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        config = LocalNetworkConfig(peer_count=0, base_port=port, directory=tmp_path / "net")
        with pytest.raises(AlreadyRunningError, match=f"port {port} cannot be used: address already in use") as caught:
            await LocalNetwork(config).__aenter__()
    assert "--base-port 0" in caught.value.hint
    assert not (tmp_path / "net").exists()


@pytest.mark.e2e
async def test_no_peer_takes_the_port_of_another(short_dir: Path) -> None:
    """Each has its own two above the base port: HTTP servers took the next peer's, and that one could not start."""
    base = free_ports(2 + 2 * 3)
    async with LocalNetwork(LocalNetworkConfig(peer_count=3, base_port=base, directory=short_dir / "net")) as network:
        await network.wait_ready()
        assert [peer.address for peer in network.peers] == [f"127.0.0.1:{base + 2 + 2 * at}" for at in range(3)]
        for at in range(3):
            _, writer = await asyncio.open_connection("127.0.0.1", base + 3 + 2 * at)
            writer.close()


@pytest.mark.e2e
def test_up_prints_where_everything_is_and_ctrl_c_leaves_nothing(tmp_path: Path, short_dir: Path) -> None:
    """1. addresses and a command to try; 2. Ctrl-C: exit code 130, one line, no process, no temporary folder.

    Between them its peers mirror what MINGA_IMAGES names: it was dropped with all other settings.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MINGA_")}
    environment |= {"TMPDIR": str(short_dir), "MINGA_IMAGES": "registry.example"}
    arguments = ["--control", str(short_dir / "c.sock"), "up", "--peers", "1", "--base-port", "0"]
    command = subprocess.Popen(
        [sys.executable, "-m", "minga_cli", *arguments], stdout=-1, stderr=-1, text=True, env=environment, cwd=tmp_path
    )
    watchdog = threading.Timer(LIMIT_SECONDS, command.kill)
    watchdog.start()
    try:
        assert command.stdout is not None
        lines = []
        while not lines or "Ctrl-C" not in lines[-1]:
            line = command.stdout.readline()
            assert line, lines
            lines.append(line)
        gateway = next(line.split("  gateway ")[1].strip() for line in lines if line.startswith("peer-1"))
        mirrored = [httpx.get(f"{gateway}/v2/?ns={name}.example").status_code for name in ("registry", "other")]
        command.send_signal(signal.SIGINT)
        _, err = command.communicate(timeout=LIMIT_SECONDS)
    finally:
        watchdog.cancel()
        command.kill()
        command.communicate()
    assert [line.split()[0] for line in lines if line.strip()][:5] == ["locator", "registry", "store", "peer-1", "logs"]
    assert re.search(r" gateway http://127\.0\.0\.1:\d+$", lines[3].rstrip()), lines[3]
    assert (command.returncode, err) == (130, "minga: the local network is stopped\n")
    assert mirrored == [200, 404]
    assert os.listdir(short_dir) == []
