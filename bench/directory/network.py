"""A directory as people run it: store, registries, locators, each a process with its own defaults."""

import asyncio
import json
import shutil
import sys
import urllib.request
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from bench.authority import BenchAuthority
from bench.directory.fixture import Layout
from bench.directory.fleet import start
from bench.directory.store import Store
from bench.directory.worker import Worker
from bench.process import HostProcess, until
from bench.product import Role, module_command, peer_command
from bench.usage import Meter

ROOT = Path(__file__).parent.parent.parent
READY_SECONDS = 30.0
HOST = "127.0.0.1"
SPREAD_SECONDS = 5.0
"""A fleet's peers start within this."""


class Network:
    """What scenarios measure. Everything that is started here ends with it."""

    def __init__(self, folder: Path, stack: AsyncExitStack) -> None:
        self.folder = folder
        self._stack = stack
        self.store = Store(folder)
        self.registries: list[str] = []
        """host:port."""
        self.locators: list[str] = []
        """host:port."""
        self.rival = ""
        """host:port of the empty FastAPI app."""
        self.pids: dict[str, int] = {}
        """Name → process id, of everything that runs."""
        self._processes: dict[str, HostProcess] = {}
        self._metrics: list[str] = []

    async def start_store(self) -> None:
        """An empty store."""
        await self.store.start()
        self._stack.push_async_callback(self.store.stop)
        self.pids["store"] = self.store.pid

    async def start_authority(self) -> BenchAuthority:
        """An authority, with a registry and a locator as its members."""
        authority = BenchAuthority(self.folder / "authority")
        await authority.start()
        self._stack.push_async_callback(authority.stop)
        for part in (Role.REGISTRY, Role.LOCATOR):
            await authority.admit(part, [part], [HOST])
        return authority

    async def start_registry(self, *flags: str) -> None:
        """One more registry, with further flags."""
        name = f"registry-{len(self.registries) + 1}"
        words = ["--redis-url", self.store.url, "--metrics-listen", "127.0.0.1:0", "--log-format", "json"]
        self.registries.append(
            await self._start(name, module_command("minga_registry", *words, *self._listening(name), *flags))
        )
        log = self.folder / f"{name}.log"
        await until(lambda: "metrics_address" in log.read_text(), READY_SECONDS, f"{name} serves metrics")
        events = [json.loads(line) for line in log.read_text().split("\n") if "metrics_address" in line]
        self._metrics.append(events[0]["metrics_address"])

    async def start_locator(self, *flags: str) -> None:
        """One more locator, with further flags."""
        name = f"locator-{len(self.locators) + 1}"
        words = ["--redis-url", self.store.url, *self._listening(name), *flags]
        self.locators.append(await self._start(name, module_command("minga_locator", *words)))

    async def start_rival(self) -> None:
        """The empty FastAPI app."""
        words = [sys.executable, "-m", "bench.directory.empty_app", str(self.folder / "rival.port")]
        self.rival = await self._start("rival", words, ROOT)

    async def start_peer(self, number: int, share: Path) -> None:
        """A real peer over a folder."""
        name, registry = f"peer-{number}", self.registries[number % len(self.registries)]
        control, locator_url = self.folder / f"{name}.sock", f"http://{self.locators[0]}"
        await self._start(name, peer_command(locator_url, control, share, registry, name, *self._listening(name)))

    async def stop_peer(self, number: int, grace_seconds: float) -> None:
        """Ends a peer, which leaves the network."""
        name = f"peer-{number}"
        del self.pids[name]
        await self._processes.pop(name).stop(grace_seconds)
        (self.folder / f"{name}.port").unlink()

    def start_worker(self, name: str, hosts: Path | None = None) -> Worker:
        """A process for load generators. hosts: see Worker."""
        worker = self._stack.enter_context(Worker(hosts))
        self.pids[name] = worker.pid
        return worker

    async def start_fleets(self, layout: Layout, parts: Sequence[Sequence[int]]) -> list[Worker]:
        """A process with announcing peers for each part of the peers; returns once all are announced."""
        fleets = [self.start_worker(f"fleet-{number + 1}") for number in range(len(parts))]
        starts = [
            fleet.run(start, self.registries, layout, list(mine), SPREAD_SECONDS)
            for fleet, mine in zip(fleets, parts, strict=True)
        ]
        await asyncio.gather(*starts)
        return fleets

    def meter(self) -> Meter:
        """Of all processes, from now on."""
        return Meter(self.pids)

    async def metric(self, name: str) -> float:
        """The sum of a metric's samples over all registries."""
        return sum([await asyncio.to_thread(_sum_of, address, name) for address in self._metrics])

    async def _start(self, name: str, words: Sequence[str], folder: Path | None = None) -> str:
        process = HostProcess(words, self.folder / f"{name}.log", folder=folder)
        self._stack.push_async_callback(process.stop)
        sign = self.folder / f"{name}.port"
        await process.ready(sign, READY_SECONDS)
        self._processes[name], self.pids[name] = process, process.pid
        return sign.read_text().strip()

    def _listening(self, name: str) -> list[str]:
        return ["--listen", f"{HOST}:0", "--port-file", str(self.folder / f"{name}.port")]


@asynccontextmanager
async def running_network(folder: Path) -> AsyncIterator[Network]:
    """An empty network in a folder, which is removed afterwards; scenarios start what they need."""
    await asyncio.to_thread(folder.mkdir, parents=True)
    try:
        async with AsyncExitStack() as stack:
            yield Network(folder, stack)
    finally:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


def _sum_of(address: str, name: str) -> float:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as response:
        lines = response.read().decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))
