"""Ten thousand peers that only keep their leases: each with a connection of its own, registered, its table pushed.

They beat as the real announcer does: at the granted interval ± 20 %, the next one counted from the last. By calls of
their own (`unary`), or on one standing stream each (`stream`), which is opened anew when the registry ends it.
"""

import asyncio
import random
import time
from collections.abc import Awaitable
from typing import Any

from bench.directory import world
from bench.directory.http2 import CallFailedError, Connection, Stream, call_headers, connect, message
from bench.directory.stats import summary
from bench.directory.worker import serve
from minga_protos.registry.v1 import registry_pb2 as pb

JITTER = 0.2
ANSWER_SECONDS = 5.0
FIRST_RETRY_SECONDS = 0.2
MAX_RETRY_SECONDS = 3.0
_SERVICE = "/minga.registry.v1.RegistryService/"


class Beats:
    """What the peers saw. Times are kept of the current measurement only."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.late: list[float] = []
        """How much later than due this process sent a heartbeat: its own fault."""
        self.failed = 0
        self.unanswered = 0
        """Of those that failed: no answer, nor an end, within ANSWER_SECONDS."""
        self.streams_opened = 0
        self.asked_again = 0
        """Answers that a lease or table was not known: what must not be."""
        self.gaps: list[float] = []
        """Between two heartbeats of a peer that succeeded, where that was longer than a lease."""

    def reset(self) -> None:
        """Begins a measurement."""
        self.seconds, self.late, self.gaps = [], [], []
        self.failed = self.unanswered = self.streams_opened = self.asked_again = 0


class LeanPeer:
    """One peer."""

    def __init__(self, number: int, address: str, mode: str, beats: Beats, joining: asyncio.Semaphore) -> None:
        self._number = number
        self._host, _, port = address.rpartition(":")
        self._port = int(port)
        self._mode = mode
        self._beats = beats
        self._joining = joining
        self._rng = random.Random(number)
        self._headers = {name: call_headers(f"{_SERVICE}{name}", address) for name in _CALLS}
        self._connection: Connection | None = None
        self._stream: Stream | None = None
        self._interval = 5.0
        self._ttl = 15.0
        self._registered = False
        self._pushed = False
        self._succeeded_at = 0.0
        self._retry_seconds = FIRST_RETRY_SECONDS
        info = world.peer_info(number)
        beat = pb.HeartbeatRequest(
            peer_id=info.peer_id, generation=info.generation, table_revision=1, free_bytes=info.free_bytes
        )
        self._message = message(beat.SerializeToString())
        self.ready = asyncio.Event()

    async def run(self) -> None:
        """Lives until cancelled."""
        async with self._joining:
            while not await self._tried(self._join()):
                pass
        self.ready.set()
        # Phases are spread as if they had come at any time; renewed in time all the same.
        await asyncio.sleep(self._rng.uniform(0, self._interval))
        self._succeeded_at = time.perf_counter()
        while True:
            if await self._tried(self._beat()):
                now = time.perf_counter()
                pause = self._interval * self._rng.uniform(1 - JITTER, 1 + JITTER)
                await asyncio.sleep(pause)
                self._beats.late.append(time.perf_counter() - now - pause)

    async def _tried(self, step: Awaitable[None]) -> bool:
        """Whether it succeeded. After failures there is a pause, longer each time, as the announcer has it."""
        try:
            await step
        except (CallFailedError, OSError, TimeoutError) as error:
            self._beats.failed += 1
            self._beats.unanswered += isinstance(error, TimeoutError)
            await asyncio.sleep(self._retry_seconds * self._rng.uniform(0.5, 1.0))
            self._retry_seconds = min(2 * self._retry_seconds, MAX_RETRY_SECONDS)
            return False
        self._retry_seconds = FIRST_RETRY_SECONDS
        return True

    async def _beat(self) -> None:
        """One heartbeat, and what it asks for."""
        started = time.perf_counter()
        answer = await self._ask()
        now = time.perf_counter()
        self._beats.seconds.append(now - started)
        if now - self._succeeded_at > self._ttl:
            self._beats.gaps.append(now - self._succeeded_at)
        self._succeeded_at = now
        if answer == _OK:
            return
        self._beats.asked_again += 1
        self._pushed = False
        self._registered = answer != _REGISTER_AGAIN
        await self._join()

    async def _join(self) -> None:
        """Registers, and pushes an empty table: what of the two has not been done."""
        if not self._registered:
            await self._register()
            self._registered = True
        if not self._pushed:
            await self._push()
            self._pushed = True

    async def _register(self) -> None:
        info = world.peer_info(self._number)
        asked = pb.RegisterRequest(
            peer_id=info.peer_id, generation=info.generation, address=info.address, zone=info.zone,
            capacity_bytes=info.capacity_bytes, free_bytes=info.free_bytes, software_version=info.software_version,
        )  # fmt: skip
        granted = pb.RegisterResponse.FromString(await self._call("Register", message(asked.SerializeToString())))
        self._interval = granted.heartbeat_interval.ToTimedelta().total_seconds()
        self._ttl = granted.granted_ttl.ToTimedelta().total_seconds()

    async def _push(self) -> None:
        info = world.peer_info(self._number)
        begin = pb.TableBegin(peer_id=info.peer_id, generation=info.generation, whole=True, revision=1)
        steps = (pb.PushTableRequest(begin=begin), pb.PushTableRequest(end=pb.TableEnd()))
        await self._call("PushTable", b"".join(message(step.SerializeToString()) for step in steps))

    async def _ask(self) -> bytes:
        """The answer to a heartbeat."""
        if self._mode == "unary":
            return await self._call("Heartbeat", self._message)
        stream, self._stream = self._stream, None
        if stream is None or stream.ended:
            stream = (await self._connected()).open(self._headers["KeepLease"])
            self._beats.streams_opened += 1
        # Kept only when there is an answer, as the peer's own client has it.
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                answer = await stream.send(self._message)
            self._stream = stream
            return answer
        finally:
            if self._stream is None:
                stream.cancel()

    async def _call(self, name: str, messages: bytes) -> bytes:
        connection = await self._connected()
        async with asyncio.timeout(ANSWER_SECONDS):
            return await connection.open(self._headers[name]).send(messages, last=True)

    async def _connected(self) -> Connection:
        if self._connection is None or not self._connection.usable:
            async with asyncio.timeout(ANSWER_SECONDS):
                self._connection = await connect(self._host, self._port, world.host(self._number))
        return self._connection


_CALLS = ("Register", "PushTable", "Heartbeat", "KeepLease")
_REGISTER_AGAIN = pb.HeartbeatResponse(action=pb.HEARTBEAT_ACTION_REGISTER_AGAIN).SerializeToString()
_OK = pb.HeartbeatResponse(action=pb.HEARTBEAT_ACTION_OK).SerializeToString()
_BEATS = Beats()
_PEERS: list[asyncio.Task[None]] = []


async def start(addresses: list[str], mode: str, first: int, count: int, at_once: int) -> dict[str, Any]:
    """Starts peers, `at_once` of them joining at a time; returns once all are registered and their tables pushed."""
    joining = asyncio.Semaphore(at_once)
    made = [
        LeanPeer(number, addresses[number % len(addresses)], mode, _BEATS, joining)
        for number in range(first, first + count)
    ]
    started = time.perf_counter()
    _PEERS.extend(asyncio.create_task(peer.run()) for peer in made)
    for peer in made:
        await peer.ready.wait()
    return {"seconds": time.perf_counter() - started, "failed": _BEATS.failed, "asked_again": _BEATS.asked_again}


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
        "unanswered": _BEATS.unanswered,
        "asked_again": _BEATS.asked_again,
        "gaps": len(_BEATS.gaps),
        "streams_opened": _BEATS.streams_opened,
        "ended": ended[:3],
        "generator_core_share": (time.process_time() - cpu) / took,
    }


if __name__ == "__main__":
    serve({"start": start, "measure": measure})
