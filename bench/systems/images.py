"""Minga as the mirror of an image registry: docker-registry on the seed, a peer and a client on each other host.

What is fetched is one layer, by the requests of a client of the registry's protocol.
"""

import asyncio
import hashlib
import os
from pathlib import Path

from bench.netns import LabError
from bench.process import until
from bench.systems.minga import READY_SECONDS, Minga

PORT, GATEWAY = 5000, "127.0.0.1:50080"
REPOSITORY = "bench/image"
_CONFIG = """
version: 0.1
log: {{level: warn, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {folder}/data}}}}
http: {{addr: "{address}:{port}"}}
"""


class Images(Minga):
    """A registry that every peer mirrors."""

    name = "images"
    commands = ("docker-registry", "curl")

    async def start(self) -> None:
        await self._start_services()
        await self._start_registry()
        self._flags += ["--images", f"http://{self._registry}", "--gateway", GATEWAY]
        await self._start_peers(self.arena.peers)

    async def fetch(self, host: str) -> None:
        url = f"http://{GATEWAY}/v2/{REPOSITORY}/blobs/sha256:{self._digest}?ns={self._registry}"
        curl = self.spawn(host, ["curl", "-q", "-sS", "--fail", "-o", str(self.result(host)), url], log=f"curl-{host}")
        if code := await curl.wait():
            raise LabError(f"curl on {host} ended with code {code}: {curl.tail()}")

    async def misses(self, host: str, count: int) -> list[float]:
        """How many seconds each of so many manifests takes that are nowhere, until the client may ask the registry."""
        digests = ",".join(os.urandom(32).hex() for _ in range(count))
        url = f"http://{GATEWAY}/v2/{REPOSITORY}/manifests/sha256:{{{digests}}}?ns={self._registry}"
        words = ["curl", "-q", "-sS", "-o", "/dev/null", "-w", r"%{http_code} %{time_total}\n", url]
        curl = self.spawn(host, words, log=f"misses-{host}")
        code, lines = await curl.wait(), [line.split() for line in curl.log.read_text().splitlines()[-count:]]
        if code or [line[0] for line in lines] != ["404"] * count:
            raise LabError(f"manifests that are nowhere on {host}: curl ended with code {code}: {curl.tail()}")
        return [float(line[1]) for line in lines]

    def result(self, host: str) -> Path:
        return self.arena.folder(host) / "layer"

    async def _start_registry(self) -> None:
        seed = self.arena.seeds[0]
        folder, address = self.arena.folder(seed), self.lab.hosts[seed].address
        self._registry = f"{address}:{PORT}"
        self._digest = await asyncio.to_thread(_store, self.arena.content, folder / "data")
        config = folder / "config.yml"
        config.write_text(_CONFIG.format(folder=folder, address=address, port=PORT))
        process = self.spawn(seed, ["docker-registry", "serve", str(config)])

        async def answers() -> bool:
            try:
                (await asyncio.to_thread(self.lab.connect, seed, PORT)).close()
            except OSError:
                return False
            return True

        await until(answers, READY_SECONDS, "the registry answers", process)


def _store(content: Path, root: Path) -> str:
    """Put a file where the registry keeps its blobs; its digest."""
    with content.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    blob = root / "docker/registry/v2/blobs/sha256" / digest[:2] / digest / "data"
    link = root / "docker/registry/v2/repositories" / REPOSITORY / "_layers/sha256" / digest / "link"
    for path in (blob, link):
        path.parent.mkdir(parents=True)
    os.link(content, blob)
    link.write_text(f"sha256:{digest}")
    return digest
