"""The bare HTTP/2 client of simulated peers, against a gRPC server of the registry's kind."""

from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
import pytest

from bench.directory.http2 import Connection, StreamEndedError, message
from minga_protos.registry.v1 import registry_pb2 as pb
from minga_protos.registry.v1.registry_pb2_grpc import RegistryServiceServicer, add_RegistryServiceServicer_to_server

SERVICE = "/minga.registry.v1.RegistryService/"


class Registry(RegistryServiceServicer):
    """Ends a stream when the peer id says so."""

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
        return pb.PushTableResponse(revision=len([step async for step in request_iterator]))


@pytest.fixture
async def connection() -> AsyncIterator[Connection]:
    """To such a registry."""
    server = grpc.aio.server()
    add_RegistryServiceServicer_to_server(Registry(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    made = await Connection.open("127.0.0.1", port, "127.0.0.2")
    yield made
    made.close()
    await server.stop(None)


def heartbeat(peer_id: str) -> bytes:
    """A framed heartbeat."""
    return message(pb.HeartbeatRequest(peer_id=peer_id, generation=1).SerializeToString())


async def test_http2_client_goes_on_with_other_calls_after_a_stream_ended(connection: Connection) -> None:
    """1. Answers on a stream. 2. The server ends it. 3. Another call of two messages. 4. A new stream."""
    connection.begin(f"{SERVICE}KeepLease")
    for _ in range(2):
        answer = pb.HeartbeatResponse.FromString(await connection.ask(heartbeat("p")))
        assert answer.action == pb.HEARTBEAT_ACTION_PUSH_TABLE
    with pytest.raises(StreamEndedError):
        await connection.ask(heartbeat("end"))
    connection.begin(f"{SERVICE}PushTable")
    steps = (pb.PushTableRequest(begin=pb.TableBegin(peer_id="p")), pb.PushTableRequest(end=pb.TableEnd()))
    answered = await connection.ask(b"".join(message(step.SerializeToString()) for step in steps), last=True)
    assert pb.PushTableResponse.FromString(answered).revision == 2
    connection.begin(f"{SERVICE}KeepLease")
    assert await connection.ask(heartbeat("p"))


async def test_http2_call_without_an_answer_message_fails(connection: Connection) -> None:
    """Register is not implemented here."""
    connection.begin(f"{SERVICE}Register")
    with pytest.raises(StreamEndedError):
        await connection.ask(heartbeat("p"), last=True)
