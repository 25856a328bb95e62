"""The store as a process: started, emptied, and asked what its bytes are spent on."""

import socket
from collections import Counter
from pathlib import Path
from typing import Any

import redis.asyncio as redis
from redis.exceptions import RedisError

from bench.netns import LabError
from bench.process import HostProcess, until
from bench.product import store_command

SLOW_MICROS = 10_000
READY_SECONDS = 20.0
MAX_SAMPLES = 2_000
"""Keys of one kind that are measured one by one."""
_PORT_TRIES = 5
_SCAN_PAGE = 10_000


class Store:
    """One server on a port of the loopback address."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: HostProcess | None = None
        self.port = 0
        self.client: Any = None

    @property
    def url(self) -> str:
        """For MINGA_REDIS_URL."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        """Of the server."""
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        """Returns once it answers. Raises LabError."""
        options = {"bind": "127.0.0.1", "slowlog_log_slower_than": str(SLOW_MICROS), "slowlog_max_len": "1024"}
        for attempt in range(_PORT_TRIES):
            self.port = _free_port()
            words = store_command(self._folder, port=str(self.port), maxclients="10000", **options)
            self._process = HostProcess(words, self._folder / "store.log")
            self.client = redis.Redis(host="127.0.0.1", port=self.port)
            try:
                return await until(self._answers, READY_SECONDS, "the store answers", self._process)
            except LabError:
                # Another process may have taken the port meanwhile.
                await self.stop()
                if attempt == _PORT_TRIES - 1:
                    raise
        return None

    async def stop(self) -> None:
        """Ends it."""
        await self.client.aclose()
        assert self._process is not None
        await self._process.stop()

    async def empty(self) -> None:
        """As after a restart: no keys, no scripts. Memory is freed in the background."""
        await self.client.execute_command("SCRIPT", "FLUSH", "ASYNC")
        await self.client.execute_command("FLUSHALL", "ASYNC")

    async def memory_bytes(self) -> int:
        """`used_memory` of INFO memory."""
        return int((await self.client.info("memory"))["used_memory"])

    async def slow(self) -> str:
        """How many commands took longer than SLOW_MICROS since the last call, and the slowest; empty when none did."""
        entries = await self.client.slowlog_get(1024)
        await self.client.slowlog_reset()
        found = [each for each in entries if not bytes(each["command"]).upper().startswith((b"MEMORY", b"SCAN"))]
        if not found:
            return ""
        worst = max(found, key=lambda each: int(each["duration"]))
        command = bytes(worst["command"])[:40].decode(errors="replace")
        return f"{len(found)} (worst {worst['duration'] / 1000:.1f} ms: {command})"

    async def bytes_by_kind(self) -> dict[str, float]:
        """Memory by the kind of key (the third part of its name), by MEMORY USAGE of a sample. Walks all keys."""
        counts: Counter[str] = Counter()
        samples: dict[str, list[bytes]] = {}
        async for key in self.client.scan_iter(count=_SCAN_PAGE):
            kind = key.decode(errors="replace").split(":")[2]
            counts[kind] += 1
            # SCAN goes by the keys' hashes, so the first ones are as good a sample as any.
            if counts[kind] <= MAX_SAMPLES:
                samples.setdefault(kind, []).append(key)
        found = {}
        for kind, sample in samples.items():
            async with self.client.pipeline(transaction=False) as pipe:
                for key in sample:
                    pipe.memory_usage(key, samples=0)
                found[kind] = counts[kind] * sum(filter(None, await pipe.execute())) / len(sample)
        return found

    async def _answers(self) -> bool:
        try:
            return bool(await self.client.ping())
        except (RedisError, OSError):
            return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
