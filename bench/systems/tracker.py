"""opentracker, which the torrent systems find each other with, on the control host."""

import asyncio
from http.client import HTTPConnection
from urllib.parse import quote_from_bytes

from bench.process import until
from bench.systems.port import CONTROL, System

PORT = 6969
READY_SECONDS = 20.0


class Tracker:
    """A running tracker. It is one process and answers every announce at once."""

    def __init__(self, system: System) -> None:
        self._system = system
        self.url = f"http://{system.lab.hosts[CONTROL].address}:{PORT}/announce"

    async def start(self, info_hash: bytes) -> None:
        """Returns when it answers. It serves this torrent alone: Debian's is built to want a list of those allowed."""
        address, folder = self._system.lab.hosts[CONTROL].address, self._system.arena.folder(CONTROL)
        (folder / "allowed").write_text(f"{info_hash.hex()}\n")
        words = ["opentracker", "-i", address, "-p", str(PORT), "-P", str(PORT), "-d", str(folder), "-w", "/allowed"]
        process = self._system.spawn(CONTROL, words, log="tracker")
        await until(lambda: self._complete(b"\0" * 20), READY_SECONDS, "the tracker answers", process)

    async def knows_seed(self, info_hash: bytes) -> None:
        """Returns when a seed of this torrent has announced itself."""
        await until(lambda: self._complete(info_hash, 1), READY_SECONDS, "the tracker knows the seed")

    async def _complete(self, info_hash: bytes, wanted: int = 0) -> bool:
        """Whether it answers and knows at least so many peers that have all of it."""
        return await asyncio.to_thread(self._scrape, info_hash, wanted)

    def _scrape(self, info_hash: bytes, wanted: int) -> bool:
        try:
            connection = HTTPConnection("tracker")
            connection.sock = self._system.lab.connect(CONTROL, PORT)
            connection.request("GET", f"/scrape?info_hash={quote_from_bytes(info_hash, safe='')}")
            answer = connection.getresponse().read()
            connection.close()
        except OSError:
            return False
        _, found, rest = answer.partition(b"8:completei")
        return int(rest.partition(b"e")[0] if found else 0) >= wanted
