"""A directory as people run it: store, registries, locators, each a process with its own defaults."""

import asyncio
import json
import shutil
import urllib.request
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path

from bench.directory.store import Store
from bench.directory.usage import Meter
from bench.directory.worker import ROOT, Worker
from minga_cli.localprocess import LocalProcess, module_command

POLL_SECONDS = 0.02
READY = timedelta(seconds=30)
GRACE = timedelta(seconds=2)


class Network:
    """What rows measure. Everything that is started here ends with it."""

    def __init__(self, folder: Path, stack: AsyncExitStack) -> None:
        self._folder = folder
        self._stack = stack
        self.store = Store(folder / "store")
        self.registries: list[str] = []
        """host:port."""
        self.locators: list[str] = []
        """host:port."""
        self.pids: dict[str, int] = {}
        """Name → process id, of everything that was started."""
        self._metrics: list[str] = []

    async def start_store(self, snapshot: Path | None = None) -> None:
        """The store, from nothing or from a snapshot."""
        await self.store.start(snapshot)
        self._stack.push_async_callback(self.store.stop)
        self.pids["store"] = self.store.pid

    async def start_registry(self, *flags: str) -> str:
        """One more registry; its host:port."""
        name = f"registry-{len(self.registries) + 1}"
        words = ["--redis-url", self.store.url, "--metrics-listen", "127.0.0.1:0", "--log-format", "json", *flags]
        address = await self._start(name, lambda file: module_command("minga_registry", *words, *_listening(file)))
        self.registries.append(address)
        self._metrics.append(await self._told(name, "registry_started", "metrics_address"))
        return address

    async def start_locator(self, *flags: str) -> str:
        """One more locator; its host:port."""
        name = f"locator-{len(self.locators) + 1}"
        words = ["--redis-url", self.store.url, *flags]
        address = await self._start(name, lambda file: module_command("minga_locator", *words, *_listening(file)))
        self.locators.append(address)
        return address

    async def start_rival(self) -> str:
        """The empty FastAPI app; its host:port."""
        command = module_command("bench.directory.empty_app")
        # It is ours and no installed package, so it is run from where it lies.
        command.remove("-P")
        return await self._start("rival", lambda file: [*command, str(file)], ROOT)

    async def start_peer(self, number: int, share: Path) -> None:
        """A real peer over a folder."""
        name = f"peer-{number}"
        registry = self.registries[number % len(self.registries)]
        words = ["--locator", f"http://{self.locators[0]}", "--control", str(self._folder / f"{name}.sock"), "peer"]
        words += ["--share", str(share), "--registry", registry, "--peer-id", name]
        await self._start(name, lambda file: module_command("minga_cli", *words, *_listening(file)))

    async def worker(self, name: str, module: str) -> Worker:
        """A load generator of ours: the module `bench.directory.<module>`."""
        worker = Worker(name, f"bench.directory.{module}", self._folder / f"{name}.log")
        await self._stack.enter_async_context(worker)
        self.pids[name] = worker.pid
        return worker

    def meter(self) -> Meter:
        """Of all processes, from now on."""
        return Meter(self.pids)

    async def metric(self, name: str) -> float:
        """The sum of a metric's samples over all registries."""
        return sum([await asyncio.to_thread(_sum_of, address, name) for address in self._metrics])

    def log_of(self, name: str) -> Path:
        """The log of a process."""
        return self._folder / f"{name}.log"

    async def _start(self, name: str, command: Callable[[Path], Sequence[str]], folder: Path | None = None) -> str:
        port_file = self._folder / f"{name}.port"
        process = LocalProcess(name, lambda: command(port_file), self.log_of(name), folder=folder)
        await process.start()
        self._stack.push_async_callback(process.stop, GRACE)
        address = await process.ready(port_file, READY)
        self.pids[name] = process.pid
        return address

    async def _told(self, process: str, event: str, field: str) -> str:
        """A field of an event in a process's JSON log; it may come a moment after the process is ready."""
        async with asyncio.timeout(READY.total_seconds()):
            while True:
                # The last line may be half written.
                for line in self.log_of(process).read_text().split("\n")[:-1]:
                    if line.startswith("{") and (entry := json.loads(line)).get("event") == event:
                        return str(entry[field])
                await asyncio.sleep(POLL_SECONDS)


@asynccontextmanager
async def running_network(folder: Path) -> AsyncIterator[Network]:
    """An empty network in a folder, which is removed afterwards; rows start what they need."""
    await asyncio.to_thread(folder.mkdir, parents=True)
    try:
        async with AsyncExitStack() as stack:
            yield Network(folder, stack)
    finally:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


def _listening(port_file: Path) -> list[str]:
    return ["--listen", "127.0.0.1:0", "--port-file", str(port_file)]


def _sum_of(address: str, name: str) -> float:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as response:
        lines = response.read().decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))
