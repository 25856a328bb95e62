"""A network of real processes, a Prometheus with the committed configuration that scrapes it, and a day's events on it.

The configuration is deploy/monitoring/prometheus.yml with other targets and shorter times: what is tested is what users
copy. Scrapes are twice a second, alerts wait two seconds.
"""

import asyncio
import math
import re
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import yaml

from deploy.monitoring.generate import HERE, RULE_FILES
from tests.e2e.conftest import Story, eventually, noise, running

INTERVAL = "500ms"
ALERT_WAIT = "2s"
MIB = 1024 * 1024
LOOKUPS = 60
"""Enough for MingaSlowLookups to be asked at all."""
_FLAGS = ("--metrics-listen", "127.0.0.1:0")


@dataclass(slots=True)
class Watched:
    """The network, its Prometheus, and what was seen on the way."""

    story: Story
    http: httpx.AsyncClient
    """Its base is the API of Prometheus."""
    addresses: dict[str, str]
    """host:port of `/metrics` by process."""
    since: float = field(default_factory=time.time)
    healthy_alerts: list[Any] = field(default_factory=list)
    """Alerts of the time before anything was broken."""
    healthy_metrics: dict[str, str] = field(default_factory=dict)
    """`/metrics` of each process then."""

    async def api(self, path: str, **query: str) -> Any:
        """The `data` of an answer of Prometheus. Fails the test on an error, with its words."""
        answer = (await self.http.get(path, params=query)).json()
        assert answer["status"] == "success", f"{query}: {answer}"
        return answer["data"]

    async def value(self, expr: str) -> float | None:
        """Of an expression with one series or none, now."""
        found = (await self.api("query", query=expr))["result"]
        assert len(found) <= 1, f"{expr}: {found}"
        return float(found[0]["value"][1]) if found else None

    async def has_data(self, expr: str) -> bool:
        """Whether an expression, filled in as Grafana does with everything chosen, had a number at any time."""
        expr = expr.replace("$cluster", ".*").replace("$namespace", ".*").replace("$__rate_interval", "1m")
        data = await self.api("query_range", query=expr, start=f"{self.since}", end=f"{time.time()}", step="1")
        return any(not math.isnan(float(value)) for series in data["result"] for _, value in series["values"])

    async def alert_is(self, name: str, *states: tuple[str, str]) -> None:
        """Return once the alerts of this name have these states and severities."""

        async def holds() -> bool:
            found = (await self.api("alerts"))["alerts"]
            mine = [each for each in found if each["labels"]["alertname"] == name]
            return {(each["state"], each["labels"]["severity"]) for each in mine} == set(states)

        await eventually(holds, f"{name} is {states}")

    async def alive(self, count: int) -> None:
        """Return when that many peers are listed, and two counts of leases made since were scraped: one outlives the
        store that it was made of until the next one."""
        counts = 'minga_registry_redis_duration_seconds_count{operation="lease_counts", outcome="ok"}'

        async def listed() -> bool:
            return len(await self.story.live_peers()) == count

        async def seen() -> bool:
            counted = await self.value("network:minga_registry_leases_alive:max")
            return (await self.value(counts) or 0) >= before + 2 and counted == count

        await eventually(listed, f"{count} peers are listed")
        before = await self.value(counts) or 0
        await eventually(seen, f"{count} leases are alive")


@asynccontextmanager
async def watched_network(binary: str, folder: Path) -> AsyncIterator[Watched]:
    """Start everything, and let everything happen once: a day's work, and a Redis that restarts empty."""
    async with running(
        folder,
        3,
        registry_flags=(*_FLAGS, "--reap-interval", "1"),
        peer_flags=(*_FLAGS, "--capacity", "2GB", "--limit-up", "20MB/s"),
    ) as story:
        addresses = {"locator": story.net.locator.address}
        for name in ("registry", *(str(peer.peer_id) for peer in story.peers)):
            addresses[name] = await _found_in(story.net.directory / f"logs/{name}.log", r"metrics_address=(\S+:\d+)")
        config = _write_configuration(folder, addresses)
        async with _prometheus(binary, config, folder) as http:
            watched = Watched(story, http, addresses)
            await eventually(lambda: _has(watched, "sum(up)", len(addresses)), "all targets are scraped")
            await _ordinary_day(watched)
            await _redis_restarts(watched)
            yield watched


async def _ordinary_day(watched: Watched) -> None:
    story = watched.story
    seed, *others = story.peers
    await story.share(seed, "model.bin", noise(32 * MIB))
    await asyncio.gather(*(story.download(peer, "model.bin") for peer in others))
    await story.share(seed, "small.bin", noise(1000))
    await story.download(others[0], "small.bin")
    await _look_up(watched, [f"nobody/has/{n}" if n % 3 == 0 else "model.bin" for n in range(LOOKUPS)])
    source = story.net.directory / "report.bin"
    source.write_bytes(noise(3 * MIB))
    words = ("--locator", story.net.locator_url, "--control", "/none", "put", str(source), "--replicas", "2")
    put = await asyncio.create_subprocess_exec(Path(sys.executable).with_name("minga"), *words)
    assert await put.wait() == 0
    (seed.share_dir / "small.bin").unlink()
    await watched.alive(len(story.peers))

    async def counted() -> bool:
        rate = await watched.value("sum(network_source:minga_peer_received_bytes:rate5m)")
        return await _has(watched, 'sum(minga_peer_downloads_total{outcome="done"})', 3) and (rate or 0) > 0

    await eventually(counted, "what was downloaded is counted")
    watched.healthy_alerts = (await watched.api("alerts"))["alerts"]
    for name, address in watched.addresses.items():
        watched.healthy_metrics[name] = (await watched.http.get(f"http://{address}/metrics")).text


async def _redis_restarts(watched: Watched) -> None:
    net = watched.story.net
    net.redis.kill()
    await _look_up(watched, [f"now/{number}" for number in range(10)])
    refused = 'sum(minga_registry_rpc_duration_seconds_count{method="KeepLease", code="UNAVAILABLE"})'
    await eventually(lambda: _has(watched, "1 - min(minga_registry_store_up)", 1), "the registry notices")
    await eventually(lambda: _has(watched, refused, len(net.peers)), "peers are refused a renewal")
    await net.redis.restart()
    await watched.alive(len(net.peers))


async def _look_up(watched: Watched, names: list[str]) -> None:
    url = watched.story.net.locator_url
    for path in (*(f"files/{name}" for name in names), "files", "stats"):
        await watched.http.get(f"{url}/v1/{path}")


async def _has(watched: Watched, expr: str, least: float) -> bool:
    return (await watched.value(expr) or 0) >= least


async def _found_in(log: Path, pattern: str) -> str:
    """What a process says in its log."""
    found: list[str] = []

    async def said() -> bool:
        found.extend(re.findall(pattern, await asyncio.to_thread(log.read_text)))
        return bool(found)

    await eventually(said, f"{log} has {pattern}")
    return found[-1]


@asynccontextmanager
async def _prometheus(binary: str, config: Path, folder: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a Prometheus on a free port."""
    flags = (f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}", "--web.listen-address=127.0.0.1:0")
    log = folder / "prometheus.log"
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(binary, *flags, stdout=output, stderr=output)
    try:
        address = await _found_in(log, r'msg="Listening on" address=(\S+)')
        async with httpx.AsyncClient(base_url=f"http://{address}/api/v1/", timeout=10, trust_env=False) as http:

            async def ready() -> bool:
                return (await http.get(f"http://{address}/-/ready")).is_success

            await eventually(ready, "Prometheus is ready")
            yield http
    finally:
        process.terminate()
        await process.wait()


def _write_configuration(folder: Path, addresses: dict[str, str]) -> Path:
    """The committed example, with these targets and short times. Returns its path."""
    config = yaml.safe_load((HERE / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": INTERVAL, "scrape_timeout": INTERVAL, "evaluation_interval": INTERVAL}
    del config["alerting"]
    jobs = {job["job_name"]: job for job in config["scrape_configs"]}
    for part in ("registry", "locator"):
        jobs[f"minga-{part}"]["static_configs"][0]["targets"] = [addresses[part]]
    del jobs["minga-peers"]["scrape_interval"]
    peers = [address for name, address in addresses.items() if name.startswith("peer-")]
    for name in ("targets", "rules"):
        (folder / name).mkdir()
    (folder / "targets/peers.yml").write_text(yaml.safe_dump([{"targets": peers}]))
    for path in RULE_FILES:
        quick = re.sub(r"^(\s+for:) .+$", rf"\1 {ALERT_WAIT}", path.read_text(), flags=re.MULTILINE)
        (folder / "rules" / path.name).write_text(quick)
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    return folder / "prometheus.yml"
