"""Runs in a worker: ten thousand peers without files that keep their leases, with a connection and a stream each.

They send heartbeats as the real announcer does: at the granted interval ± 20 %, the next one counted from the last. A
stream that the registry has ended is opened anew.
"""

import asyncio
import random
import time
from typing import Any

from bench.directory import fixture
from bench.directory.http2 import Connection, StreamEndedError, message
from bench.directory.stats import summary
from minga_protos.registry.v1 import registry_pb2 as pb

JITTER = 0.2
ANSWER_SECONDS = 5.0
FIRST_RETRY_SECONDS = 0.2
MAX_RETRY_SECONDS = 3.0
_SERVICE = "/minga.registry.v1.RegistryService/"
_OK = pb.HeartbeatResponse(action=pb.HEARTBEAT_ACTION_OK).SerializeToString()


class Seen:
    """What the peers saw since the last reset."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begins a measurement."""
        self.seconds: list[float] = []
        self.late: list[float] = []
        """How much later than due this process sent a heartbeat: its own fault."""
        self.failed = 0
        self.lost = 0
        """Answers that a lease or table is not known, and pauses between two heartbeats that exceeded a lease."""


class Peer:
    """One peer."""

    def __init__(self, number: int, address: str, seen: Seen) -> None:
        self._info = fixture.peer_info(number)
        self._source = fixture.host(number)
        self._host, _, port = address.rpartition(":")
        self._port = int(port)
        self._seen = seen
        self._rng = random.Random(number)
        self._connection: Connection | None = None
        self._keeping = False
        """Whether the connection's current call is the stream of heartbeats."""
        request = pb.HeartbeatRequest(
            peer_id=self._info.peer_id, generation=self._info.generation, table_revision=1, free_bytes=1
        )
        self._heartbeat = message(request.SerializeToString())
        self._interval = self._ttl = 0.0
        self._retry_seconds = FIRST_RETRY_SECONDS

    async def join(self, joining: asyncio.Semaphore) -> None:
        """Registers and pushes an empty table, after retries if need be."""
        async with joining:
            while not await self._try(self._register):
                pass

    async def run(self) -> None:
        """Sends heartbeats until cancelled."""
        # Phases are spread as if the peers had come at any time.
        await asyncio.sleep(self._rng.uniform(0, self._interval))
        succeeded_at = time.perf_counter()
        while True:
            started = time.perf_counter()
            if not await self._try(self._send_heartbeat):
                continue
            now = time.perf_counter()
            self._seen.seconds.append(now - started)
            self._seen.lost += now - succeeded_at > self._ttl
            succeeded_at = now
            pause = self._interval * self._rng.uniform(1 - JITTER, 1 + JITTER)
            await asyncio.sleep(pause)
            self._seen.late.append(time.perf_counter() - now - pause)

    async def _try(self, step: Any) -> bool:
        """Whether it succeeded. After failures there is a pause, longer each time, as the real announcer has it."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await step()
        except (StreamEndedError, OSError, EOFError) as error:
            self._seen.failed += 1
            self._keeping = False
            if self._connection is not None and isinstance(error, TimeoutError):
                self._connection.cancel()
            elif self._connection is not None and not isinstance(error, StreamEndedError):
                self._connection.close()
            await asyncio.sleep(self._retry_seconds * self._rng.uniform(0.5, 1.0))
            self._retry_seconds = min(2 * self._retry_seconds, MAX_RETRY_SECONDS)
            return False
        self._retry_seconds = FIRST_RETRY_SECONDS
        return True

    async def _register(self) -> None:
        info = self._info
        request = pb.RegisterRequest(
            peer_id=info.peer_id, generation=info.generation, address=info.address, zone=info.zone,
            capacity_bytes=info.capacity_bytes, free_bytes=info.free_bytes, software_version=info.software_version,
        )  # fmt: skip
        granted = pb.RegisterResponse.FromString(await self._call("Register", request))
        self._interval = granted.heartbeat_interval.ToTimedelta().total_seconds()
        self._ttl = granted.granted_ttl.ToTimedelta().total_seconds()
        begin = pb.TableBegin(peer_id=info.peer_id, generation=info.generation, whole=True, revision=1)
        await self._call("PushTable", pb.PushTableRequest(begin=begin), pb.PushTableRequest(end=pb.TableEnd()))

    async def _send_heartbeat(self) -> None:
        try:
            answer = await (await self._stream()).ask(self._heartbeat)
        except StreamEndedError:
            # The registry ends streams and connections of some age.
            self._keeping = False
            answer = await (await self._stream()).ask(self._heartbeat)
        if answer != _OK:
            self._seen.lost += 1
            await self._register()

    async def _stream(self) -> Connection:
        connection = await self._connected()
        if not self._keeping:
            connection.begin(f"{_SERVICE}KeepLease")
            self._keeping = True
        return connection

    async def _call(self, name: str, *requests: Any) -> bytes:
        connection = await self._connected()
        self._keeping = False
        connection.begin(f"{_SERVICE}{name}")
        return await connection.ask(b"".join(message(each.SerializeToString()) for each in requests), last=True)

    async def _connected(self) -> Connection:
        if self._connection is None or not self._connection.usable:
            self._keeping = False
            self._connection = await Connection.open(self._host, self._port, self._source)
        return self._connection


_SEEN = Seen()
_TASKS: list[asyncio.Task[None]] = []


async def start(address: str, count: int, at_once: int) -> None:
    """Starts peers, `at_once` of them joining at a time; returns once all are registered and their tables pushed."""
    joining = asyncio.Semaphore(at_once)
    peers = [Peer(number, address, _SEEN) for number in range(count)]
    await asyncio.gather(*(peer.join(joining) for peer in peers))
    _TASKS.extend(asyncio.create_task(peer.run()) for peer in peers)


async def measure(seconds: float) -> dict[str, Any]:
    """What the heartbeats of the next while are like."""
    _SEEN.reset()
    started = time.perf_counter()
    await asyncio.sleep(seconds)
    rate = len(_SEEN.seconds) / (time.perf_counter() - started)
    for task in _TASKS:
        if task.done():
            task.result()
    found = {"rate": rate, "failed": _SEEN.failed, "lost": _SEEN.lost, "late": summary(_SEEN.late)}
    return found | {"seconds": summary(_SEEN.seconds), "count": len(_SEEN.seconds)}
