"""Ten thousand peers that only keep their leases: each with a connection of its own, registered, its table pushed.

They beat as the real announcer does: at the granted interval ± 20 %, the next one counted from the last. By calls of
their own (`unary`), or on one standing stream each (`stream`), which is opened anew when the registry ends it.
"""

import asyncio
import random
import time
from contextlib import suppress
from typing import Any

from bench.directory import world
from bench.directory.http2 import CallFailedError, Connection, Stream, call_headers, connect, message
from bench.directory.stats import summary
from bench.directory.worker import serve
from minga_protos.registry.v1 import registry_pb2 as pb

JITTER = 0.2
ANSWER_SECONDS = 5.0
RETRY_SECONDS = 0.5
CONNECTING_AT_ONCE = 200
_SERVICE = "/minga.registry.v1.RegistryService/"


class Beats:
    """What the peers saw. Times are kept of the current measurement only."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.late: list[float] = []
        """How much later than due this process sent a heartbeat: its own fault."""
        self.failed = 0
        self.streams_opened = 0
        self.asked_again = 0
        """Answers that a lease or table was not known: what must not be."""
        self.gaps: list[float] = []
        """Between two heartbeats of a peer that succeeded, where that was longer than a lease."""

    def reset(self) -> None:
        """Begins a measurement."""
        self.seconds, self.late, self.gaps = [], [], []
        self.failed = self.streams_opened = self.asked_again = 0


class LeanPeer:
    """One peer."""

    def __init__(self, number: int, address: str, mode: str, beats: Beats, connecting: asyncio.Semaphore) -> None:
        self._number = number
        self._host, _, port = address.rpartition(":")
        self._port = int(port)
        self._mode = mode
        self._beats = beats
        self._connecting = connecting
        self._rng = random.Random(number)
        self._headers = {name: call_headers(f"{_SERVICE}{name}", address) for name in _CALLS}
        self._connection: Connection | None = None
        self._stream: Stream | None = None
        self._interval = 5.0
        self._ttl = 15.0
        info = world.peer_info(number)
        beat = pb.HeartbeatRequest(
            peer_id=info.peer_id, generation=info.generation, table_revision=1, free_bytes=info.free_bytes
        )
        self._beat = message(beat.SerializeToString())
        self.ready = asyncio.Event()

    async def run(self) -> None:
        """Lives until cancelled."""
        while not self.ready.is_set():
            with suppress(CallFailedError, OSError, TimeoutError):
                await self._join()
                self.ready.set()
                break
            await asyncio.sleep(RETRY_SECONDS)
        # Phases are spread as if they had come at any time; renewed in time all the same.
        await asyncio.sleep(self._rng.uniform(0, self._interval))
        succeeded_at = time.perf_counter()
        while True:
            started = time.perf_counter()
            try:
                answer = await self._ask()
            except (CallFailedError, OSError, TimeoutError):
                self._beats.failed += 1
                await asyncio.sleep(RETRY_SECONDS * self._rng.uniform(0.5, 1.0))
                continue
            now = time.perf_counter()
            self._beats.seconds.append(now - started)
            if now - succeeded_at > self._ttl:
                self._beats.gaps.append(now - succeeded_at)
            succeeded_at = now
            if answer != _OK:
                self._beats.asked_again += 1
            pause = self._interval * self._rng.uniform(1 - JITTER, 1 + JITTER)
            await asyncio.sleep(pause)
            self._beats.late.append(time.perf_counter() - now - pause)

    async def _join(self) -> None:
        """Registers, and pushes an empty table."""
        info = world.peer_info(self._number)
        asked = pb.RegisterRequest(
            peer_id=info.peer_id, generation=info.generation, address=info.address, zone=info.zone,
            capacity_bytes=info.capacity_bytes, free_bytes=info.free_bytes, software_version=info.software_version,
        )  # fmt: skip
        granted = pb.RegisterResponse.FromString(await self._call("Register", message(asked.SerializeToString())))
        self._interval = granted.heartbeat_interval.ToTimedelta().total_seconds()
        self._ttl = granted.granted_ttl.ToTimedelta().total_seconds()
        begin = pb.TableBegin(peer_id=info.peer_id, generation=info.generation, whole=True, revision=1)
        steps = (pb.PushTableRequest(begin=begin), pb.PushTableRequest(end=pb.TableEnd()))
        await self._call("PushTable", b"".join(message(step.SerializeToString()) for step in steps))

    async def _ask(self) -> bytes:
        """The answer to a heartbeat."""
        if self._mode == "unary":
            return await self._call("Heartbeat", self._beat)
        if self._stream is None or self._stream.ended:
            self._stream = (await self._connected()).open(self._headers["KeepLease"])
            self._beats.streams_opened += 1
        async with asyncio.timeout(ANSWER_SECONDS):
            return await self._stream.send(self._beat)

    async def _call(self, name: str, messages: bytes) -> bytes:
        connection = await self._connected()
        async with asyncio.timeout(ANSWER_SECONDS):
            return await connection.open(self._headers[name]).send(messages, last=True)

    async def _connected(self) -> Connection:
        if self._connection is None or not self._connection.usable:
            async with self._connecting, asyncio.timeout(ANSWER_SECONDS):
                self._connection = await connect(self._host, self._port)
        return self._connection


_CALLS = ("Register", "PushTable", "Heartbeat", "KeepLease")
_OK = pb.HeartbeatResponse(action=pb.HEARTBEAT_ACTION_OK).SerializeToString()
_BEATS = Beats()
_PEERS: list[asyncio.Task[None]] = []


async def start(addresses: list[str], mode: str, first: int, count: int, per_second: float) -> dict[str, Any]:
    """Starts peers at that pace; returns once all are registered and their tables pushed."""
    connecting = asyncio.Semaphore(CONNECTING_AT_ONCE)
    made = [
        LeanPeer(number, addresses[number % len(addresses)], mode, _BEATS, connecting)
        for number in range(first, first + count)
    ]
    started = time.perf_counter()
    for index, peer in enumerate(made):
        _PEERS.append(asyncio.create_task(peer.run()))
        await asyncio.sleep(max(0.0, started + index / per_second - time.perf_counter()))
    for peer in made:
        await peer.ready.wait()
    return {"seconds": time.perf_counter() - started}


async def measure(seconds: float) -> dict[str, Any]:
    """What the heartbeats of the next while were like."""
    _BEATS.reset()
    cpu, started = time.process_time(), time.perf_counter()
    await asyncio.sleep(seconds)
    took = time.perf_counter() - started
    ended = [repr(task.exception()) for task in _PEERS if task.done() and not task.cancelled()]
    return {
        "rate": len(_BEATS.seconds) / took,
        "seconds": summary(_BEATS.seconds),
        "late": summary(_BEATS.late),
        "failed": _BEATS.failed,
        "asked_again": _BEATS.asked_again,
        "gaps": len(_BEATS.gaps),
        "streams_opened": _BEATS.streams_opened,
        "ended": ended[:3],
        "generator_core_share": (time.process_time() - cpu) / took,
    }


if __name__ == "__main__":
    serve({"start": start, "measure": measure})
