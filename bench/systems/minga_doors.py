"""Minga through its other doors: read by a Python program, and by curl from the gateway of the reader's own peer."""

import asyncio

from bench.netns import LabError
from bench.process import until
from bench.product import Client
from bench.systems.minga import Minga

PIECE_BYTES = 1 << 20
GATEWAY_PORT = 50080
PLACED_SECONDS = 30.0


class _Reading(Minga):
    """What was read stays in the shared folder; until it is synced, as for a download, counts as well."""

    async def _in_place(self, host: str) -> None:
        async def is_there() -> bool:
            return await asyncio.to_thread(self.result(host).exists)

        await until(is_there, PLACED_SECONDS, f"{host} keeps what was read", self.processes[host][0])


class MingaOpen(_Reading):
    """A program on the host reads the file to its end."""

    name = "minga-open"

    async def fetch(self, host: str) -> None:
        # A control socket is a file, so this process can be the program. Its processor time is not counted.
        if await asyncio.to_thread(self._read, host) != self.arena.content.stat().st_size:
            raise LabError(f"{host} read less than the file")
        await self._in_place(host)

    def _read(self, host: str) -> int:
        with Client(control=self._run / f"{host}.sock") as client, client.open(self.arena.content.name) as file:
            buffer = bytearray(PIECE_BYTES)
            return sum(iter(lambda: file.readinto(buffer), 0))


class MingaGateway(_Reading):
    """curl on the host throws away what it is sent."""

    name = "minga-gateway"
    commands = ("curl",)

    async def fetch(self, host: str) -> None:
        url = f"http://{self._gateway(host)}/files/{self.arena.content.name}"
        curl = self.spawn(host, ["curl", "-q", "-sS", "--fail", "-o", "/dev/null", url], log=f"{host}-curl")
        if code := await curl.wait():
            raise LabError(f"curl on {host} ended with code {code}: {curl.tail()}")
        await self._in_place(host)

    def _peer_flags(self, host: str) -> tuple[str, ...]:
        return (f"--gateway={self._gateway(host)}",)

    def _gateway(self, host: str) -> str:
        return f"{self.lab.hosts[host].address}:{GATEWAY_PORT}"
