"""Several servers behind one name: calls while servers start and stop, and while connections reach their age limit."""

import asyncio
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import grpc
import grpc.aio
import pytest

from minga_runtime.channels import make_balanced_channel
from minga_runtime.server import ConnectionAge, GrpcServer
from tests.support.proxy import Faults, proxied

from .support import LIMIT_SECONDS, SERVICE, answer, server_of

NAME = "who.test"
SOON = ConnectionAge(timedelta(seconds=0.3), grace=timedelta(seconds=LIMIT_SECONDS))
_A, _IN = 1, 1


class NameServer(asyncio.DatagramProtocol):
    """Knows NAME alone, and answers with the addresses of now (RFC 1035). Without any there is no such name."""

    def __init__(self) -> None:
        self.addresses: list[str] = []
        self.questions = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def datagram_received(self, data: bytes, caller: Any) -> None:
        question_end = data.index(b"\0", 12) + 5
        kind = struct.unpack("!H", data[question_end - 4 : question_end - 2])[0]
        self.questions += kind == _A
        found = self.addresses if kind == _A else []
        # Each answer: a pointer to the name, type, class, 1 s to live, four bytes.
        records = [struct.pack("!HHHIH", 0xC00C, _A, _IN, 1, 4) + socket.inet_aton(address) for address in found]
        flags = 0x8580 if self.addresses else 0x8583
        header = data[:2] + struct.pack("!HHHHH", flags, 1, len(records), 0, 0)
        self._transport.sendto(header + data[12:question_end] + b"".join(records), caller)


class Fleet:
    """Servers on addresses of the loopback, all on one port, and the name that stands for them."""

    def __init__(self, names: NameServer, name_server: str) -> None:
        self._names = names
        self._name_server = name_server
        self._servers: dict[str, GrpcServer] = {}
        self.port = 0
        self.held = asyncio.Event()
        """Streams go on once it is set."""

    async def start(self, address: str, age: ConnectionAge | None = None) -> None:
        """A server on `address`; the first one chooses the port. It is found by the name from now on."""

        async def who(request: bytes, context: Any) -> bytes:
            return address.encode()

        async def stream(request: bytes, context: Any) -> AsyncIterator[bytes]:
            yield address.encode()
            await self.held.wait()
            yield b"end"

        server = server_of({"Who": who, "Stream": stream}, connection_age=age)
        (self.port,) = await server.start([f"{address}:{self.port}"], [SERVICE])
        self._servers[address] = server
        self._names.addresses.append(address)

    async def stop(self, address: str, grace: timedelta) -> None:
        """Stops a server in order; the name forgets it afterwards, as names do."""
        await self._servers.pop(address).stop(grace)
        self._names.addresses.remove(address)

    def channel(self) -> grpc.aio.Channel:
        """A channel to the name."""
        return make_balanced_channel(f"{NAME}:{self.port}", name_server=self._name_server)

    async def aclose(self) -> None:
        """Stop the remaining servers."""
        for server in self._servers.values():
            await server.stop(timedelta(0))


@pytest.fixture
async def fleet() -> AsyncIterator[Fleet]:
    """No server yet."""
    names = NameServer()
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(lambda: names, ("127.0.0.1", 0))
    host, port = transport.get_extra_info("sockname")
    async with AsyncExitStack() as stack:
        stack.callback(transport.close)
        made = Fleet(names, f"{host}:{port}")
        stack.push_async_callback(made.aclose)
        yield made


async def who(channel: grpc.aio.Channel) -> str:
    """The address of the server that answers a call."""
    return (await answer(channel, method="Who")).decode()


async def called_until(channel: grpc.aio.Channel, done: Callable[[Counter[str]], bool]) -> Counter[str]:
    """Calls, one after the other, until what was answered so far will do. A call that fails fails the test."""
    answers: Counter[str] = Counter()
    async with asyncio.timeout(LIMIT_SECONDS):
        while not done(answers):
            answers[await who(channel)] += 1
            # Connections are made, and end, between calls.
            await asyncio.sleep(0)
    return answers


async def calling(channel: grpc.aio.Channel, done: Callable[[], bool], callers: int = 20) -> Counter[str]:
    """Many calls at a time until it is done. One that fails fails the test."""
    answers: Counter[str] = Counter()

    async def caller() -> None:
        while not done():
            answers[await who(channel)] += 1

    async with asyncio.timeout(LIMIT_SECONDS):
        await asyncio.gather(*(caller() for _ in range(callers)))
    return answers


async def test_a_server_that_comes_gets_its_share_once_connections_age(fleet: Fleet) -> None:
    """Without ageing a client would stay with those that it met first, and never ask for the name again."""
    await fleet.start("127.0.0.1", SOON)
    async with fleet.channel() as channel:
        assert await who(channel) == "127.0.0.1"
        await fleet.start("127.0.0.2", SOON)
        await called_until(channel, lambda answers: answers["127.0.0.2"] >= 10)


async def test_no_call_fails_because_a_connection_was_old(fleet: Fleet) -> None:
    """A call that arrives as its connection ends is sent again over another. Both servers close theirs many times."""
    for address in ("127.0.0.1", "127.0.0.2"):
        await fleet.start(address, ConnectionAge(timedelta(seconds=0.1), grace=timedelta(seconds=LIMIT_SECONDS)))
    async with fleet.channel() as channel:
        loop = asyncio.get_running_loop()
        ends = loop.time() + 3.0
        await calling(channel, lambda: loop.time() > ends)


async def test_a_server_that_vanishes_is_found_while_its_lease_lives(fleet: Fleet) -> None:
    """Packets are dropped: no reset, no answer. A stream fails soon, and calls after it, over new connections, too."""
    faults = Faults()
    await fleet.start("127.0.0.1")
    async with proxied(fleet.port, faults) as port:
        vanished = timedelta(seconds=1)
        async with make_balanced_channel(f"127.0.0.1:{port}", vanished=vanished) as channel:
            stream = channel.unary_stream(f"/{SERVICE}/Stream")(b"")
            assert await stream.read() == b"127.0.0.1"
            faults.silent = True
            for call in (stream.read(), channel.unary_unary(f"/{SERVICE}/Who")(b"")):
                async with asyncio.timeout(LIMIT_SECONDS):
                    with pytest.raises(grpc.aio.AioRpcError) as caught:
                        await call
                assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_stream_under_way_outlives_its_connections_age(fleet: Fleet) -> None:
    """That is what the grace is for: calls go elsewhere meanwhile, and the stream ends well."""
    await fleet.start("127.0.0.1", SOON)
    async with fleet.channel() as channel:
        stream = channel.unary_stream(f"/{SERVICE}/Stream")(b"", timeout=LIMIT_SECONDS)
        assert await stream.read() == b"127.0.0.1"
        await fleet.start("127.0.0.2", SOON)
        await called_until(channel, lambda answers: answers["127.0.0.2"] >= 1)
        fleet.held.set()
        assert await stream.read() == b"end"
        assert await stream.read() == grpc.aio.EOF


async def test_a_server_that_stops_in_order_costs_no_call(fleet: Fleet) -> None:
    """As in an upgrade: it is still behind the name while it stops, and for a while afterwards. What it has begun it
    ends. gRPC 1.85 never hands out a call that arrives in the moment when the stop begins, and aborts it once the grace
    is over: that alone may be lost."""
    await fleet.start("127.0.0.1")
    await fleet.start("127.0.0.2")
    async with fleet.channel() as channel:
        await called_until(channel, lambda answers: len(answers) == 2)
        streams = [channel.unary_stream(f"/{SERVICE}/Stream")(b"", timeout=LIMIT_SECONDS) for _ in range(2)]
        assert {await stream.read() for stream in streams} == {b"127.0.0.1", b"127.0.0.2"}
        stopping = asyncio.create_task(fleet.stop("127.0.0.1", timedelta(seconds=1)))
        lost: list[str | None] = []

        async def caller() -> None:
            while not stopping.done():
                try:
                    await who(channel)
                except grpc.aio.AioRpcError as error:
                    lost.append(error.details())
                fleet.held.set()

        async with asyncio.timeout(LIMIT_SECONDS):
            await asyncio.gather(*(caller() for _ in range(20)))
        assert len(lost) < 10, "each of its calls"
        assert set(lost) <= {"Cancelling all calls"}
        assert {await stream.read() for stream in streams} == {b"end"}
        assert {await who(channel) for _ in range(10)} == {"127.0.0.2"}
