"""Minga whose content is nobody's yet: it lies behind a URL on the seed, and every peer wants it at once."""

import asyncio
import time
from contextlib import aclosing, closing
from pathlib import Path
from typing import ClassVar

from bench.netns import LabError
from bench.product import DownloadPhase, OriginRequest, OriginUrl, gateway_socket
from bench.systems.minga import Minga
from bench.systems.nginx import PORT, LimitedNginx, Nginx
from bench.systems.port import Arena
from minga_core.errors import MingaError


class MingaOrigin(Minga):
    """An nginx on the seed, which runs no peer; the peers fetch from it, one for all."""

    name = "minga-origin"
    commands = ("nginx",)
    server: ClassVar[type[Nginx]] = Nginx

    def __init__(self, arena: Arena) -> None:
        super().__init__(arena)
        self._server = self.server(arena)
        # Its cost is counted, and it ends, with the others.
        self._server.processes = self.processes
        self._place = f"{self.lab.hosts[arena.seeds[0]].address}:{PORT}"
        self._origin = OriginUrl(f"http://{self._place}/{arena.content.name}")
        self._flags += [f"--fetch-allow=http://{self._place}/", "--cache=100%"]
        self._paths: dict[str, Path] = {}

    async def start(self) -> None:
        await self._server.start()
        await self._start_services()
        await self._start_peers(self.arena.peers)

    async def fetch(self, host: str) -> None:
        reading = asyncio.create_task(self._read_first_byte(host))
        try:
            async with aclosing(self._clients[host].fetch(self._origin, OriginRequest(self._origin.url))) as steps:
                async for progress in steps:
                    if progress.phase in (DownloadPhase.DONE, DownloadPhase.ALREADY_PRESENT) and progress.path:
                        self._paths[host] = progress.path
                        await reading
                        return
        except MingaError as error:
            raise LabError(f"{host} could not fetch {self._origin}: {error}") from error
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
        raise LabError(f"{host}'s fetch of {self._origin} ended without the file")

    async def _read_first_byte(self, host: str) -> None:
        """As a client of the peer's gateway on that host. It is no copy more: the rest is not read."""
        began = time.monotonic()
        reader, writer = await asyncio.open_unix_connection(str(gateway_socket(self._run / f"{host}.sock")))
        with closing(writer):
            path = f"/fetch/http/{self._place}/{self.arena.content.name}"
            writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nRange: bytes=0-0\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            if b" 206 " not in head.partition(b"\r\n")[0]:
                raise LabError(f"{host}'s gateway answers {head[:100]!r}")
            await reader.readexactly(1)
        self.first_bytes[host] = time.monotonic() - began

    def result(self, host: str) -> Path:
        return self._paths[host]


class MingaLimitedOrigin(MingaOrigin):
    """The same, of an nginx that limits each connection."""

    name = "minga-origin-limited"
    server = LimitedNginx


class OneThenSwarm(MingaOrigin):
    """What people do without claims: one machine downloads the file with curl and shares it, then the others fetch."""

    name = "one-then-swarm"
    commands = ("nginx", "curl")

    async def start(self) -> None:
        self._shared = asyncio.Event()
        await super().start()

    async def fetch(self, host: str) -> None:
        first = self.arena.peers[0]
        if host != first:
            await self._shared.wait()
            await self.fetch_file(host, self.arena.content.name)
            return
        await self._server.fetch(host)
        self._server.result(host).rename(self.result(host))
        await self._holds(host, 1, self.processes[host][0])
        self._shared.set()

    def result(self, host: str) -> Path:
        return self._share(host) / self.arena.content.name
