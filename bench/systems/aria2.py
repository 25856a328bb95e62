"""aria2 as a BitTorrent client on every host, with opentracker."""

import asyncio
import base64
import json
import os
import shlex
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from bench.content import place
from bench.netns import LabError
from bench.process import HostProcess, until
from bench.systems.port import Arena, System
from bench.systems.torrent import make_torrent
from bench.systems.tracker import Tracker

RPC_PORT = 6800
READY_SECONDS = 60.0
FLAGS_VARIABLE = "BENCH_ARIA2_FLAGS"
"""Further flags for every aria2, for trying settings out."""
HOOK = """#!/bin/sh
echo {host} > {fifo}
"""
FLAGS = {
    # The tracker alone, which sends every peer all others at its first announce.
    "enable-dht": "false",
    "enable-dht6": "false",
    "bt-enable-lpd": "false",
    "disable-ipv6": "true",
    # No limit to how many peers it talks to, and it goes on looking for more at any rate below this one.
    "bt-max-peers": "0",
    "bt-request-peer-speed-limit": "1000M",
    # Peers go on giving after they have it all.
    "seed-ratio": "0.0",
    # Nothing between it and the disk: no preallocated zeros, and a cache that holds what is not yet a whole piece.
    "file-allocation": "none",
    "disk-cache": "64M",
    # In the clear.
    "bt-min-crypto-level": "plain",
    "bt-require-crypto": "false",
    "listen-port": "6881",
    "enable-rpc": "true",
    "rpc-listen-all": "true",
    "rpc-listen-port": str(RPC_PORT),
    "rpc-max-request-size": "16M",
    "summary-interval": "0",
    "console-log-level": "warn",
    "show-console-readout": "false",
    "no-conf": "true",
    "allow-overwrite": "true",
}


class Aria2(System):
    """Every aria2 runs before the clock starts, without a torrent; a call gives it one."""

    name = "aria2"
    commands = ("aria2c", "opentracker")

    def __init__(self, arena: Arena) -> None:
        super().__init__(arena)
        self._fifo = arena.directory / "finished"
        self._finished: dict[str, asyncio.Future[None]] = {}
        self._flags = shlex.split(os.environ.get(FLAGS_VARIABLE, ""))

    async def start(self) -> None:
        self.arena.directory.mkdir(parents=True, exist_ok=True)
        self._listen()
        tracker = Tracker(self)
        path = self.arena.directory / "content.torrent"
        info_hash = await asyncio.to_thread(make_torrent, self.arena.content, tracker.url, path)
        await tracker.start(info_hash)
        self._torrent = base64.b64encode(path.read_bytes()).decode()
        hosts = [*self.arena.seeds, *self.arena.peers]
        for host, process in [(host, self._spawn(host)) for host in hosts]:
            await until(lambda host=host: self._answers(host), READY_SECONDS, f"{host}'s aria2 answers", process)  # type: ignore[misc]
        for host in self.arena.seeds:
            place(self.arena.content, self.arena.folder(host))
            # It is complete: no need to read all of it.
            await self._call(host, "addTorrent", self._torrent, [], {"bt-seed-unverified": "true"})
        await tracker.knows_seed(info_hash)

    async def fetch(self, host: str) -> None:
        self._finished[host] = asyncio.get_running_loop().create_future()
        await self._call(host, "addTorrent", self._torrent, [], {})
        await self._finished[host]

    def result(self, host: str) -> Path:
        return self.arena.folder(host) / self.arena.content.name

    async def stop(self) -> None:
        asyncio.get_running_loop().remove_reader(self._reader)
        os.close(self._reader)

    def _listen(self) -> None:
        """aria2 runs a hook when a download is complete; each writes its host's name into one pipe."""
        os.mkfifo(self._fifo)
        # For reading and writing, so that it never ends.
        self._reader = os.open(self._fifo, os.O_RDWR | os.O_NONBLOCK)
        asyncio.get_running_loop().add_reader(self._reader, self._on_finished)

    def _on_finished(self) -> None:
        for host in os.read(self._reader, 4096).decode().split():
            if host in self._finished and not self._finished[host].done():
                self._finished[host].set_result(None)

    def _spawn(self, host: str) -> HostProcess:
        folder = self.arena.folder(host)
        hook = self.arena.directory / f"{host}.hook"
        hook.write_text(HOOK.format(host=host, fifo=self._fifo))
        hook.chmod(0o755)
        own = {"dir": str(folder), "on-bt-download-complete": str(hook)}
        flags = [f"--{name}={value}" for name, value in (FLAGS | own).items()]
        return self.spawn(host, ["aria2c", *flags, *self._flags])

    async def _answers(self, host: str) -> bool:
        try:
            await self._call(host, "getVersion")
        except OSError:
            return False
        return True

    async def _call(self, host: str, method: str, *parameters: object) -> Any:
        return await asyncio.to_thread(self._call_now, host, method, *parameters)

    def _call_now(self, host: str, method: str, *parameters: object) -> Any:
        body = {"jsonrpc": "2.0", "id": "bench", "method": f"aria2.{method}", "params": parameters}
        connection = HTTPConnection(host)
        connection.sock = self.lab.connect(host, RPC_PORT)
        try:
            connection.request("POST", "/jsonrpc", json.dumps(body), {"Content-Type": "application/json"})
            answer = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        if "error" in answer:
            raise LabError(f"aria2 on {host}: {answer['error']}")
        return answer["result"]
