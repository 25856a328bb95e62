"""A network of real processes, a Prometheus with the committed configuration that scrapes it, and a day's events on it.

The configuration is deploy/monitoring/prometheus.yml with other targets and shorter times: what is tested is what users
copy. Times are shortened alike: scrapes twice a second, alerts wait two seconds.
"""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml

from deploy.tests.monitoring.prometheus import Prometheus, fetch, running_prometheus
from deploy.tests.monitoring.sources import MONITORING, RULE_FILES
from deploy.tests.monitoring.waiting import eventually
from minga.settings import ClientSettings
from minga.standalone import TransferClient
from minga_cli.localnet import LocalNetwork, LocalNetworkConfig, LocalService
from minga_core.errors import FileNotFoundInDirectoryError, MingaError
from minga_core.names import parse_name
from minga_engine.wire.locator import LocatorClient
from tests.e2e.conftest import Story, noise

INTERVAL = "500ms"
ALERT_WAIT = "2s"
LEASE = timedelta(seconds=3)
MIB = 1024 * 1024
LOOKUPS = 60
"""Enough for MingaSlowLookups to be asked at all."""
_METRICS_ADDRESS = re.compile(r"metrics_address=(\S+:\d+)")


@dataclass(slots=True)
class Watched:
    """The network, its Prometheus, and what was seen on the way."""

    story: Story
    prometheus: Prometheus
    addresses: dict[str, str]
    """host:port of `/metrics` by process."""
    since: float = field(default_factory=time.time)
    """Seconds since the epoch."""
    healthy_alerts: list[dict[str, Any]] = field(default_factory=list)
    """Alerts of the time before anything was broken."""
    healthy_metrics: dict[str, str] = field(default_factory=dict)
    """What each process told then."""

    @property
    def net(self) -> LocalNetwork:
        return self.story.net

    async def metrics(self) -> dict[str, str]:
        """`/metrics` of every process."""
        return {name: await fetch(f"http://{address}/metrics") for name, address in self.addresses.items()}

    async def alive(self, count: int) -> None:
        """Returns when that many peers are listed, and Prometheus has seen them counted since.

        A count outlives the store that it was made of until the next one: two more must have been made and scraped.
        """

        async def listed() -> bool:
            return len(await self.story.live_peers()) == count

        async def seen() -> bool:
            value = await self.prometheus.value("network:minga_registry_leases_alive:max")
            return await self._counts() >= before + 2 and value == count

        await eventually(listed, f"{count} peers are listed")
        before = await self._counts()
        await eventually(seen, f"{count} leases are alive")

    async def _counts(self) -> float:
        """How often the registry has counted leases."""
        found = await self.prometheus.value(
            'minga_registry_redis_duration_seconds_count{operation="lease_counts", outcome="ok"}'
        )
        return found or 0.0


@asynccontextmanager
async def watched_network(binary: Path, folder: Path) -> AsyncIterator[Watched]:
    """Starts everything, and lets everything happen once:

    1. files are shared, found, not found, listed, uploaded, and downloaded by two at once;
    2. Redis restarts empty, with look-ups meanwhile; the peers say everything again.
    """
    metrics = ("--metrics-listen", "127.0.0.1:0")
    config = LocalNetworkConfig(
        peer_count=3,
        directory=folder / "net",
        lease_ttl=LEASE,
        registry_flags=(*metrics, "--reap-interval", "1"),
        peer_flags=(*metrics, "--capacity", "2GB", "--limit-up", "20MB/s"),
    )
    async with LocalNetwork(config) as net:
        await net.wait_ready()
        addresses = {"locator": net.locator.address, "registry": await _metrics_address(net.registry)}
        addresses |= {str(peer.peer_id): await _metrics_address(peer) for peer in net.peers}
        path = await asyncio.to_thread(_write_configuration, folder, addresses)
        async with running_prometheus(binary, path, folder) as prometheus:
            watched = Watched(Story(net), prometheus, addresses)
            await eventually(lambda: _are_up(prometheus, len(addresses)), "all targets are scraped")
            await _ordinary_day(watched)
            await _redis_restarts(watched)
            yield watched


async def _ordinary_day(watched: Watched) -> None:
    story = watched.story
    seed, *takers = story.peers
    await story.share(seed, "model.bin", noise(32 * MIB))
    await asyncio.gather(*(story.download(peer, "model.bin") for peer in takers))
    await story.share(seed, "small.bin", noise(1000))
    await story.download(takers[0], "small.bin")
    async with LocatorClient(story.net.locator_url) as locator:
        await _look_ups(locator)
        source = story.net.directory / "report.bin"
        await asyncio.to_thread(source.write_bytes, noise(3 * MIB))
        async with TransferClient(locator, ClientSettings(locator=story.net.locator_url)) as client:
            await client.put(source, parse_name("report.bin"), replicas=2, on_progress=lambda _: None)
    removed = seed.share_dir / "small.bin"
    await asyncio.to_thread(removed.unlink)
    await watched.alive(len(story.peers))
    # One more scrape and evaluation than there were events, so that what was counted can be seen.
    await eventually(lambda: _moved(watched.prometheus), "what was downloaded is counted")
    watched.healthy_alerts = await watched.prometheus.alerts()
    watched.healthy_metrics = await watched.metrics()


async def _look_ups(locator: LocatorClient) -> None:
    for number in range(LOOKUPS):
        if number % 3:
            await locator.find_file(parse_name("model.bin"))
        else:
            with suppress(FileNotFoundInDirectoryError):
                await locator.find_file(parse_name(f"nobody/has/{number}"))
    assert [file async for file in locator.iter_files()]
    await locator.stats()


async def _redis_restarts(watched: Watched) -> None:
    net = watched.net
    net.redis.kill()
    async with LocatorClient(net.locator_url, patience=timedelta()) as locator:
        for number in range(10):
            with suppress(MingaError):
                await locator.find_file(parse_name(f"now/{number}"))
    await eventually(lambda: _is(watched.prometheus, "min(minga_registry_store_up)", 0), "the registry notices")
    await net.redis.restart()
    await watched.alive(len(net.peers))


async def _metrics_address(service: LocalService) -> str:
    """Where a process serves its metrics, from its log; it is ready before it says so."""
    found: re.Match[str] | None = None

    async def told() -> bool:
        nonlocal found
        found = _METRICS_ADDRESS.search(await asyncio.to_thread(service.process.log_path.read_text))
        return found is not None

    await eventually(told, f"{service.process.name} tells where its metrics are")
    assert found is not None
    return found[1]


def _write_configuration(folder: Path, addresses: dict[str, str]) -> Path:
    """The committed example, with these targets and short times. Returns its path."""
    config = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": INTERVAL, "scrape_timeout": INTERVAL, "evaluation_interval": INTERVAL}
    del config["alerting"]
    jobs = {job["job_name"]: job for job in config["scrape_configs"]}
    assert set(jobs) == {"minga-registry", "minga-locator", "minga-peers"}
    for job in jobs.values():
        job.pop("scrape_interval", None)
    for part in ("registry", "locator"):
        (static,) = jobs[f"minga-{part}"]["static_configs"]
        static["targets"] = [addresses[part]]
    peers = [address for name, address in addresses.items() if name.startswith("peer-")]
    (folder / "targets").mkdir()
    (folder / "targets/peers.yml").write_text(yaml.safe_dump([{"targets": peers}]))
    (folder / "rules").mkdir()
    for path in RULE_FILES:
        hasty = re.sub(r"^(\s+for:) .+$", rf"\1 {ALERT_WAIT}", path.read_text(), flags=re.MULTILINE)
        (folder / "rules" / path.name).write_text(hasty)
    written = folder / "prometheus.yml"
    written.write_text(yaml.safe_dump(config))
    return written


async def _are_up(prometheus: Prometheus, count: int) -> bool:
    return await prometheus.targets_up() == count


async def _is(prometheus: Prometheus, expr: str, wanted: float) -> bool:
    return await prometheus.value(expr) == wanted


async def _moved(prometheus: Prometheus) -> bool:
    done = await prometheus.value('sum(minga_peer_downloads_total{outcome="done"})')
    rate = await prometheus.value("sum(network_source:minga_peer_received_bytes:rate5m)")
    return done is not None and done >= 3 and rate is not None and rate > 0
