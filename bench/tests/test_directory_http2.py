"""The bare HTTP/2 client of simulated peers, against the registry's own kind of server."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
import pytest

from bench.directory.http2 import CallFailedError, Connection, call_headers, connect, message
from minga_protos.registry.v1 import registry_pb2 as pb
from minga_protos.registry.v1.registry_pb2_grpc import RegistryServiceServicer, add_RegistryServiceServicer_to_server

SERVICE = "/minga.registry.v1.RegistryService/"
LIMIT_SECONDS = 10.0


class Registry(RegistryServiceServicer):
    """Answers by what it is asked."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    async def Heartbeat(self, request: pb.HeartbeatRequest, context: Any) -> pb.HeartbeatResponse:
        if request.peer_id == "refused":
            await context.abort(grpc.StatusCode.UNAVAILABLE, "no")
        self.heard.append(request.peer_id)
        return pb.HeartbeatResponse(action=pb.HEARTBEAT_ACTION_OK)

    async def KeepLease(
        self, request_iterator: AsyncIterator[pb.HeartbeatRequest], context: Any
    ) -> AsyncIterator[pb.HeartbeatResponse]:
        async for request in request_iterator:
            if request.peer_id == "end":
                return
            yield pb.HeartbeatResponse(action=pb.HEARTBEAT_ACTION_PUSH_TABLE)

    async def PushTable(
        self, request_iterator: AsyncIterator[pb.PushTableRequest], context: Any
    ) -> pb.PushTableResponse:
        steps = [step.WhichOneof("step") async for step in request_iterator]
        return pb.PushTableResponse(revision=len(steps))


@pytest.fixture
async def connection() -> AsyncIterator[Connection]:
    """To such a registry."""
    server = grpc.aio.server()
    add_RegistryServiceServicer_to_server(Registry(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    made = await connect("127.0.0.1", port)
    yield made
    made.close()
    await server.stop(None)


def beat(peer_id: str) -> bytes:
    """A framed heartbeat."""
    return message(pb.HeartbeatRequest(peer_id=peer_id, generation=1).SerializeToString())


def headers(name: str) -> bytes:
    """Of a call."""
    return call_headers(f"{SERVICE}{name}", "registry")


async def test_calls_of_their_own_are_answered(connection: Connection) -> None:
    """One after the other on one connection."""
    async with asyncio.timeout(LIMIT_SECONDS):
        for _ in range(3):
            answer = await connection.open(headers("Heartbeat")).send(beat("a"), last=True)
            assert pb.HeartbeatResponse.FromString(answer).action == pb.HEARTBEAT_ACTION_OK


async def test_a_call_that_is_refused_has_failed(connection: Connection) -> None:
    """Whatever its status; the connection lives on."""
    async with asyncio.timeout(LIMIT_SECONDS):
        with pytest.raises(CallFailedError):
            await connection.open(headers("Heartbeat")).send(beat("refused"), last=True)
        await connection.open(headers("Heartbeat")).send(beat("a"), last=True)


async def test_a_standing_stream_carries_one_message_after_the_other_until_it_is_ended(connection: Connection) -> None:
    """And says so when it has been."""
    async with asyncio.timeout(LIMIT_SECONDS):
        stream = connection.open(headers("KeepLease"))
        for _ in range(3):
            answer = pb.HeartbeatResponse.FromString(await stream.send(beat("a")))
            assert answer.action == pb.HEARTBEAT_ACTION_PUSH_TABLE
        with pytest.raises(CallFailedError):
            await stream.send(beat("end"))
        assert stream.ended


async def test_several_messages_go_in_one_call(connection: Connection) -> None:
    """As a push of a table."""
    steps = (pb.PushTableRequest(begin=pb.TableBegin(whole=True)), pb.PushTableRequest(end=pb.TableEnd()))
    framed = b"".join(message(step.SerializeToString()) for step in steps)
    async with asyncio.timeout(LIMIT_SECONDS):
        answer = await connection.open(headers("PushTable")).send(framed, last=True)
    assert pb.PushTableResponse.FromString(answer).revision == 2


async def test_calls_fail_when_the_connection_is_lost(connection: Connection) -> None:
    """None waits for ever."""
    stream = connection.open(headers("KeepLease"))
    async with asyncio.timeout(LIMIT_SECONDS):
        await stream.send(beat("a"))
        waiting = stream.send(beat("a"))
        connection.close()
        with pytest.raises(CallFailedError):
            await waiting
    assert not connection.usable
