"""One client takes all that it can get. It is answered RESOURCE_EXHAUSTED or 429; another one is served meanwhile."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import grpc
import grpc.aio
import pytest

from minga_core.manifest import MAX_MANIFEST_BYTES
from minga_engine.wire.http_format import ChunkRequest
from minga_protos.peer.v1 import peer_pb2
from minga_protos.registry.v1 import registry_pb2
from minga_registry.push_turns import WAITING
from minga_runtime.channels import make_channel
from tests.fuzz.elsewhere import seen_from
from tests.fuzz.target import MAX_CONNECTIONS_EACH, PEER, REGISTRY, SETTLE_SECONDS, Bystander, Target

pytestmark = [pytest.mark.redis, pytest.mark.e2e]

ROUNDS = 12
"""Answers that the other client gets at the height of a flood: three from each port."""
MAX_PUSHES = 64
ME = {"peer_id": "flooder", "generation": 7}


@asynccontextmanager
async def flooding(address: str) -> AsyncIterator[grpc.aio.Channel]:
    """A channel of the flooder, which is another host."""
    async with seen_from(address) as way, make_channel(way) as channel:
        yield channel


async def eventually(holds: Callable[[], object], what: str) -> None:
    """Returns once it holds; fails after a while."""
    try:
        async with asyncio.timeout(SETTLE_SECONDS):
            while not holds():  # noqa: ASYNC110 - the condition is another process' state
                await asyncio.sleep(0.01)
    except TimeoutError:
        pytest.fail(what)


async def others_are_served(bystander: Bystander) -> None:
    """Returns when they have been served some more."""
    before = bystander.answered
    await eventually(lambda: bystander.answered >= before + ROUNDS, "others are not served")


def under(target: Target, flood: Callable[[Bystander], Coroutine[Any, Any, None]]) -> None:
    """Runs a flood while the network is watched."""
    with target.watched() as bystander:
        asyncio.run(flood(bystander))


class Calls:
    """Calls that are begun and stay open, and the statuses of those that ended."""

    def __init__(self) -> None:
        self.ended: Counter[str] = Counter()
        self.open = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._over = asyncio.Event()

    def begin(self, call: Any, *messages: Any) -> None:
        """Sends the messages, and reads the answers until the end."""
        self._tasks.append(asyncio.create_task(self._follow(call, messages)))

    async def begun(self, count: int) -> None:
        """Returns when so many are open or have ended."""
        await eventually(
            lambda: self.open + sum(self.ended.values()) >= count, f"{self.open} are open, {self.ended} ended"
        )

    async def end(self) -> None:
        """Ends those that are open."""
        self._over.set()
        await asyncio.gather(*self._tasks)

    async def _follow(self, call: Any, messages: tuple[Any, ...]) -> None:
        for message in messages:
            # A call that was refused fails here, and its status, below, says why.
            with suppress(grpc.aio.AioRpcError, grpc.aio.UsageError, asyncio.InvalidStateError):
                await call.write(message)
        ended, over = asyncio.create_task(call.code()), asyncio.create_task(self._over.wait())
        tasks = [ended, over, asyncio.create_task(_read(call))]
        done, _ = await asyncio.wait((ended, over), timeout=1.0, return_when=asyncio.FIRST_COMPLETED)
        if not done:
            self.open += 1
            await asyncio.wait((ended, over), return_when=asyncio.FIRST_COMPLETED)
        if ended.done():
            self.ended[ended.result().name] += 1
        call.cancel()
        await _cancel(tasks)


async def _read(call: Any) -> None:
    with suppress(grpc.aio.AioRpcError, asyncio.CancelledError):
        while await call.read() is not grpc.aio.EOF:
            pass


async def _cancel(tasks: Sequence[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


Flood = Callable[[grpc.aio.Channel, Calls, Target], Awaitable[int]]
"""Begins its calls; how many."""
Endless = Callable[[grpc.aio.Channel, int, "Counter[int]"], Awaitable[None]]
"""A client that goes on until cancelled, and counts its answers."""


async def pushes(channel: grpc.aio.Channel, calls: Calls, target: Target) -> int:
    """Pushes that never end: more than may wait for a turn."""
    register = registry_pb2.RegisterRequest(**ME, address="127.0.0.1:1")
    await channel.unary_unary(f"{REGISTRY}Register", _bytes)(register)
    begin = registry_pb2.PushTableRequest(begin=registry_pb2.TableBegin(**ME, whole=True, revision=1))
    # One host may have half of the turns. Not as many as a connection has streams (1,000): gRPC itself refuses those.
    count = WAITING * MAX_PUSHES // 2 + 100
    for _ in range(count):
        calls.begin(channel.stream_stream(f"{REGISTRY}PushTable", _bytes)(), begin)
    return count


async def manifests_of_nothing(channel: grpc.aio.Channel, calls: Calls, target: Target) -> int:
    """Uploads that announce the largest manifest and send none of it."""
    begin = peer_pb2.StoreBegin(name="flood", content_id=bytes(32), manifest_size_bytes=MAX_MANIFEST_BYTES)
    for _ in range(100):
        calls.begin(channel.stream_stream(f"{PEER}StoreFile", _bytes)(), peer_pb2.StoreFileRequest(begin=begin))
    return 100


async def replicas_of_nothing(channel: grpc.aio.Channel, calls: Calls, target: Target) -> int:
    """Replicas that never come, since no peer has them."""
    source = peer_pb2.Source(peer_id="absent", address="127.0.0.1:9")
    for number in range(400):
        request = peer_pb2.ReplicateFileRequest(
            name=f"flood/{number}", content_id=number.to_bytes(32, "big"), sources=[source]
        )
        calls.begin(channel.unary_stream(f"{PEER}ReplicateFile", _bytes)(request))
    return 400


@pytest.mark.parametrize("flood", [pushes, manifests_of_nothing, replicas_of_nothing])
def test_flood_of_calls_is_refused_and_others_are_served(target: Target, flood: Flood) -> None:
    """Some stay open, the others end with RESOURCE_EXHAUSTED at once."""

    async def flooded(bystander: Bystander) -> None:
        async with flooding(target.registry if flood is pushes else target.peer) as channel:
            calls = Calls()
            await calls.begun(await flood(channel, calls, target))
            # Those that a busy machine has not answered within a second count as open until they end.
            await eventually(lambda: calls.ended, "no call is refused")
            assert set(calls.ended) == {"RESOURCE_EXHAUSTED"}
            assert calls.open > 0
            await others_are_served(bystander)
            await calls.end()

    under(target, flooded)


def test_chunks_that_are_not_read_delay_no_other_client(target: Target) -> None:
    """300 requests for a large file, whose responses are not read."""
    manifest = target.contents["big.bin"]
    request = ChunkRequest(manifest.content_id, ((0, manifest.geometry.chunk_count),)).encode(target.chunks)

    async def flooded(bystander: Bystander) -> None:
        async with seen_from(target.chunks) as way:
            connections = await asyncio.gather(*(_connected(way) for _ in range(300)))
            for _, writer in connections:
                writer.write(request)
            await others_are_served(bystander)
            for _, writer in connections:
                writer.close()

    under(target, flooded)


async def heartbeats(channel: grpc.aio.Channel, number: int, answers: Counter[int]) -> None:
    """One stream, as fast as it is answered."""
    call = channel.stream_stream(f"{REGISTRY}KeepLease", _bytes)()
    with suppress(grpc.aio.AioRpcError):
        while True:
            await call.write(registry_pb2.HeartbeatRequest(**ME))
            if await call.read() is grpc.aio.EOF:
                return
            answers[number] += 1


async def registrations(channel: grpc.aio.Channel, number: int, answers: Counter[int]) -> None:
    """One after the other, each of a new peer."""
    call = channel.unary_unary(f"{REGISTRY}Register", _bytes)
    while True:
        name = f"flood-{number}-{answers[number]}"
        request = registry_pb2.RegisterRequest(peer_id=name, generation=1, address="127.0.0.1:1")
        request.asked_ttl.seconds = 1
        with suppress(grpc.aio.AioRpcError):
            await call(request)
        answers[number] += 1


@pytest.mark.parametrize(("work", "clients"), [(heartbeats, 500), (registrations, 300)])
def test_endless_calls_delay_no_other_client(target: Target, work: Endless, clients: int) -> None:
    """Hundreds are under way at any time."""

    async def flooded(bystander: Bystander) -> None:
        answers = Counter[int]()
        async with flooding(target.registry) as channel:
            flood = [asyncio.create_task(work(channel, number, answers)) for number in range(clients)]
            await eventually(lambda: len(answers) == clients, "not every client is answered")
            await others_are_served(bystander)
            await _cancel(flood)

    under(target, flooded)


def test_silent_connections_keep_no_other_client_out(target: Target) -> None:
    """HTTP connections above a host's quota get 429; gRPC and the locator accept them, and others are not delayed."""

    async def flooded(bystander: Bystander) -> None:
        async with seen_from(target.chunks) as way:
            connections = await asyncio.gather(*(_connected(way) for _ in range(MAX_CONNECTIONS_EACH + 20)))
            refused: list[bytes] = []

            async def first_bytes(reader: asyncio.StreamReader) -> None:
                refused.append(await reader.read(12))

            reading = [asyncio.create_task(first_bytes(reader)) for reader, _ in connections]
            await eventually(lambda: len(refused) >= 20, "no connection is refused")
            assert set(refused) == {b"HTTP/1.1 429"}
            silent = [await _connected(address) for address in (target.registry, target.locator) for _ in range(200)]
            await others_are_served(bystander)
            await _cancel(reading)
            for _, writer in (*connections, *silent):
                writer.close()

    under(target, flooded)


async def _connected(address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, _, port = address.rpartition(":")
    return await asyncio.open_connection(host, int(port))


def _bytes(message: Any) -> bytes:
    encoded: bytes = message.SerializeToString()
    return encoded
