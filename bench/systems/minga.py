"""Minga as people run it: registry, locator and store on a control host, one peer daemon on each other host."""

import asyncio
import json
import os
import shlex
from collections.abc import Sequence
from contextlib import aclosing, closing
from http.client import HTTPConnection
from pathlib import Path

from bench.authority import BenchAuthority
from bench.content import place
from bench.netns import LabError
from bench.process import HostProcess, until
from bench.product import (
    ControlClient,
    DownloadPhase,
    Role,
    minga_command,
    module_command,
    peer_command,
    store_command,
)
from bench.systems.port import CONTROL, Arena, System
from minga_core.errors import MingaError
from minga_core.names import parse_name

READY_SECONDS = 60.0
ANNOUNCED_SECONDS = 300.0
"""How long what a host shares may take to be hashed and known."""
PUBLISHED_AT_ONCE = 1000
"""So many files are published before they are announced."""
LOCATOR_PORT = 50052
PEER_PORT = 50053
FLAGS_VARIABLE = "BENCH_MINGA_FLAGS"
"""Further flags for every peer daemon, for trying settings out."""


class Minga(System):
    """One `minga peer` a host, asked through its control socket, which is a file and so not bound to a namespace."""

    name = "minga"
    scheme = "http"

    def __init__(self, arena: Arena) -> None:
        super().__init__(arena)
        # A socket's path may have about 100 bytes, so theirs is short.
        self._run = arena.directory.parent / "run"
        self._run.mkdir()
        self._clients: dict[str, ControlClient] = {}
        self._locator_url = f"{self.scheme}://{self.lab.hosts[CONTROL].address}:{LOCATOR_PORT}"
        self._flags = shlex.split(os.environ.get(FLAGS_VARIABLE, ""))

    async def start(self) -> None:
        await self._start_services()
        for host in self.arena.seeds:
            place(self.arena.content, self._share(host))
        await self._start_peers([*self.arena.seeds, *self.arena.peers])

    async def fetch(self, host: str) -> None:
        if self.arena.content.is_dir():
            await self.command(host, "get", f"{self.arena.content.name}/")
        else:
            await self.fetch_file(host, self.arena.content.name)

    async def fetch_file(self, host: str, name: str) -> None:
        """One file through a host's daemon. Raises LabError."""
        try:
            async with aclosing(self._clients[host].download(parse_name(name))) as steps:
                async for progress in steps:
                    if progress.phase in (DownloadPhase.DONE, DownloadPhase.ALREADY_PRESENT):
                        return
        except MingaError as error:
            raise LabError(f"{host} could not fetch {name}: {error}") from error
        raise LabError(f"{host}'s download of {name} ended without the file")

    async def command(self, host: str, *words: str) -> None:
        """A whole `minga` command on a host. Raises LabError when it fails."""
        process = self.spawn(host, minga_command(self._locator_url, self._run / f"{host}.sock", *words))
        if code := await process.wait():
            raise LabError(f"minga {' '.join(words)} on {host} ended with code {code}: {process.tail()}")

    def result(self, host: str) -> Path:
        return self._share(host) / self.arena.content.name

    async def share_now(self, host: str) -> None:
        """Drop the content into the share of a running host; returns once the registry has all of it."""
        place(self.arena.content, self._share(host))
        await self._holds(host, self._file_count(), self.processes[host][-1])

    async def stop(self) -> None:
        for client in self._clients.values():
            await client.__aexit__(None, None, None)

    def _share(self, host: str) -> Path:
        share = self.arena.folder(host) / "share"
        share.mkdir(exist_ok=True)
        return share

    async def _start_services(self) -> None:
        store, address = self._run / "store.sock", self.lab.hosts[CONTROL].address
        words = store_command(self._run, port="0", unixsocket=str(store))
        await self.spawn(CONTROL, words, log="store").ready(store, READY_SECONDS)
        for part, port in (("registry", 50051), ("locator", LOCATOR_PORT)):
            sign = self._run / f"{part}.port"
            flags = ["--redis-url", f"unix://{store}", "--listen", f"{address}:{port}", self._trust(part)]
            flags += ["--port-file", str(sign)]
            words = module_command(f"minga_{part}", *flags)
            await self.spawn(CONTROL, words, log=part).ready(sign, READY_SECONDS)

    def _trust(self, name: str) -> str:
        """The flag by which a part knows whom it may trust."""
        return "--open=1"

    async def _start_peers(self, hosts: Sequence[str]) -> None:
        """All at once; returns when each has announced what it shares."""
        started = [(host, self._start_peer(host)) for host in hosts]
        for host, process in started:
            await process.ready(self._run / f"{host}.port", READY_SECONDS)
            await self._announced(host, process)

    def _peer_flags(self, host: str) -> tuple[str, ...]:
        """Further flags of one host's peer."""
        return ()

    def _start_peer(self, host: str) -> HostProcess:
        control = self._run / f"{host}.sock"
        self._clients[host] = ControlClient(control)
        listen = f"{self.lab.hosts[host].address}:{PEER_PORT}"
        registry = f"{self.lab.hosts[CONTROL].address}:50051"
        flags = ("--listen", listen, self._trust(host), "--port-file", str(self._run / f"{host}.port"))
        flags += (*self._peer_flags(host), *self._flags)
        return self.spawn(host, peer_command(self._locator_url, control, self._share(host), registry, host, *flags))

    async def _announced(self, host: str, process: HostProcess) -> None:
        """Returns when all that the host shares is hashed and known to the registry."""
        await self._holds(host, self._file_count() if host in self.arena.seeds else 0, process)

    def _file_count(self) -> int:
        return sum(path.is_file() for path in self.arena.content_paths())

    async def _holds(self, host: str, file_count: int, process: HostProcess) -> None:
        async def holds() -> bool:
            status = await self._clients[host].status()
            known = status.registered and status.announced_revision >= status.table_revision
            held = known and not status.pending_hash_count and status.file_count >= file_count
            # A table is announced while some of many files still wait to be published.
            return held and (file_count <= PUBLISHED_AT_ONCE or await asyncio.to_thread(self._listed) >= file_count)

        await until(holds, ANNOUNCED_SECONDS, f"{host} has announced its files", process)

    def _listed(self) -> int:
        """Names that the directory has; for a locator without TLS. Blocking."""
        with closing(HTTPConnection(self.lab.hosts[CONTROL].address)) as locator:
            locator.sock = self.lab.connect(CONTROL, LOCATOR_PORT)
            locator.request("GET", "/v1/stats")
            return int(json.loads(locator.getresponse().read())["names"])


class MingaOutput(Minga):
    """The same, fetched to a path outside of the shared folder."""

    name = "minga-output"

    async def fetch(self, host: str) -> None:
        await self.command(host, "get", f"{self.arena.content.name}/", "-o", str(self.result(host)))

    def result(self, host: str) -> Path:
        return self.arena.folder(host) / "output" / self.arena.content.name


class SecureMinga(Minga):
    """The same network, whose members have certificates, grants and tags of an authority."""

    name = "minga-tls"
    scheme = "https"

    async def start(self) -> None:
        self._authority = BenchAuthority(self.arena.directory.parent / "authority")
        await self._authority.start()
        for part in (Role.REGISTRY, Role.LOCATOR):
            await self._authority.admit(part, [part], [self.lab.hosts[CONTROL].address])
        await self._authority.admit(Role.PEER, [*self.arena.seeds, *self.arena.peers])
        await super().start()

    async def stop(self) -> None:
        await super().stop()
        await self._authority.stop()

    def _trust(self, name: str) -> str:
        return f"--credentials={self._authority.credentials(name)}"
