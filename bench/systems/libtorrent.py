"""libtorrent (rasterbar) through its Python binding: one session a host, which is given all other addresses."""

import asyncio
import json
import os
import sys
from pathlib import Path

from bench.content import place
from bench.netns import LabError
from bench.process import HostProcess
from bench.systems.port import Arena, System
from bench.systems.torrent import make_torrent

READY_SECONDS = 60.0
SETTINGS_VARIABLE = "BENCH_LIBTORRENT_SETTINGS"
"""JSON: further settings for every session (and super_seeding), for trying them out."""
SETTINGS: dict[str, object] = {
    # On top of the library's own high_performance_seed().
    "enable_dht": False,
    "enable_lsd": False,
    "enable_upnp": False,
    "enable_natpmp": False,
    # TCP alone, as for all others: its own uTP gives way to whatever else is in a queue.
    "enable_incoming_utp": False,
    "enable_outgoing_utp": False,
    # In the clear.
    "in_enc_policy": 2,
    "out_enc_policy": 2,
    # Connections are made at once and not spread over the first seconds.
    "smooth_connects": False,
    "min_reconnect_time": 1,
    # A seed that suggests what it has in its cache makes all want the same.
    "suggest_mode": 0,
    # As many as there are processors did best from one host to another, against 8 and 1 by default.
    "aio_threads": os.cpu_count(),
    "hashing_threads": os.cpu_count(),
    # More may wait for the disk than the 7 MiB of high_performance_seed(): its default again.
    "max_queued_disk_bytes": 100 << 20,
}
SWARM_SETTINGS: dict[str, object] = {
    # Seconds' worth of requests outstanding with a peer: less than 3, or too many wait for the same seed. 8 hosts at
    # 100 Mbit/s: 1.38 to 1.53 bounds instead of 1.76.
    "request_queue_time": 1,
}
SUPER_SEEDING_PEERS = 12
"""BEP 16: the seed sends a piece again only once it has seen it elsewhere. With 16 downloaders the last was done after
1.65 bounds instead of 1.73, with 8 after 1.69 instead of 1.38 to 1.53."""


class Libtorrent(System):
    """Every session runs before the clock starts, without a torrent; a line on stdin gives it one."""

    name = "libtorrent"
    modules = ("libtorrent",)

    def __init__(self, arena: Arena) -> None:
        super().__init__(arena)
        peer_count = len(arena.peers)
        own = SWARM_SETTINGS if peer_count > 1 else {}
        self._settings = SETTINGS | own | json.loads(os.environ.get(SETTINGS_VARIABLE, "{}"))
        self._super_seeding = bool(self._settings.pop("super_seeding", peer_count >= SUPER_SEEDING_PEERS))

    async def start(self) -> None:
        self.arena.directory.mkdir(parents=True, exist_ok=True)
        self._torrent = self.arena.directory / "content.torrent"
        await asyncio.to_thread(make_torrent, self.arena.content, "", self._torrent)
        for host in self.arena.seeds:
            place(self.arena.content, self.arena.folder(host))
        started = [self._spawn(host) for host in (*self.arena.seeds, *self.arena.peers)]
        self._lines = {process.host: await _reader(process) for process in started}
        for process in started:
            async with asyncio.timeout(READY_SECONDS):
                await self._expect(process.host, "ready")

    async def fetch(self, host: str) -> None:
        os.write(self.processes[host][0].stdin, b"go\n")
        await self._expect(host, "done")

    def result(self, host: str) -> Path:
        return self.arena.folder(host) / self.arena.content.name

    def _spawn(self, host: str) -> HostProcess:
        others = [name for name in (*self.arena.seeds, *self.arena.peers) if name != host]
        configuration = {
            "torrent": str(self._torrent),
            "folder": str(self.arena.folder(host)),
            "address": self.lab.hosts[host].address,
            "seeding": host in self.arena.seeds,
            "peers": [self.lab.hosts[name].address for name in others],
            "super_seeding": self._super_seeding,
            "settings": self._settings,
        }
        script = Path(__file__).with_name("libtorrent_peer.py")
        return self.spawn(host, [sys.executable, "-P", str(script), json.dumps(configuration)], pipes=True)

    async def _expect(self, host: str, line: str) -> None:
        if (await self._lines[host].readline()).decode().strip() != line:
            raise LabError(f"libtorrent on {host} ended: {self.processes[host][0].tail()}")


async def _reader(process: HostProcess) -> asyncio.StreamReader:
    """What the process says, line by line."""
    loop, reader = asyncio.get_running_loop(), asyncio.StreamReader()
    pipe = os.fdopen(os.dup(process.stdout), "rb", buffering=0)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
    return reader
