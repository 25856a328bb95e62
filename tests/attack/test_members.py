"""A member that turned bad: it acts for itself alone, and what it says of others counts for nothing."""

import asyncio

import grpc.aio
import pytest

from minga_core.ids import parse_address, parse_peer_id
from minga_engine.wire.http_format import END_OF_HEAD, ChunkResponse, ErrorResponse, decode_response
from minga_engine.wire.messages import SourceAddress
from minga_protos.peer.v1 import peer_pb2
from minga_protos.registry.v1 import registry_pb2 as pb

from .attacker import Attacker
from .network import Network
from .victim import HOST, Victim

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.e2e]


def source(peer_id: str, address: str) -> SourceAddress:
    return SourceAddress(parse_peer_id(peer_id), parse_address(address))


async def answer(net: Network, who: Attacker, requester: SourceAddress) -> object:
    """What the first peer's HTTP server answers."""
    return decode_response((await net.chunk(who, requester)).removesuffix(END_OF_HEAD))


async def test_a_heartbeat_for_another_ends_the_stream(secure: Network) -> None:
    """Also behind one for itself, on a stream that stands."""
    beats = [pb.HeartbeatRequest(peer_id=f"peer-{number}", generation=1, free_bytes=2**50) for number in (2, 1)]
    with pytest.raises(grpc.aio.AioRpcError, match=r"may not act for peer .peer-1"):
        await secure.at_registry(secure.member("peer-2"), "KeepLease", *beats)


async def test_a_push_in_the_name_of_another_is_refused(secure: Network) -> None:
    """Its first message says whose table it is; a second one that says otherwise is refused as well."""
    begins = [pb.TableBegin(peer_id=f"peer-{number}", generation=1, whole=True, revision=1) for number in (2, 1)]
    steps = [pb.PushTableRequest(begin=begin) for begin in begins]
    with pytest.raises(grpc.aio.AioRpcError):
        await secure.at_registry(secure.member("peer-2"), "PushTable", *steps)


async def test_the_certificate_alone_is_no_lease(secure: Network) -> None:
    """A stolen certificate without the lease token does not end or take over the living peer's lease."""
    of = {"peer_id": "peer-1", "generation": 1, "lease_token": bytes(16)}
    thief = secure.member("peer-1")
    with pytest.raises(grpc.aio.AioRpcError):
        await secure.at_registry(thief, "Register", pb.RegisterRequest(**of, address=f"{HOST}:1"))
    await secure.at_registry(thief, "Leave", pb.LeaveRequest(**of))


@pytest.mark.parametrize("who", ["peer-2", "command"])
async def test_nobody_asks_for_chunks_as_another(secure: Network, who: str) -> None:
    """Slots and peer exchange are of the certificate's owner."""
    got = await answer(secure, secure.member(who), source("peer-3", "127.0.0.1:1"))
    assert isinstance(got, ErrorResponse)
    assert "may not act for peer 'peer-3'" in str(got.error)


async def test_a_member_is_named_only_where_it_is(secure: Network) -> None:
    """Its own id with a victim's address goes to nobody."""
    await answer(secure, secure.member("peer-2"), source("peer-2", "10.9.9.9:1"))
    got = await answer(secure, secure.member("peer-3"), source("peer-3", "127.0.0.1:1"))
    assert isinstance(got, ChunkResponse)
    assert got.sources == ()


@pytest.mark.parametrize("silent", [False, True])
async def test_a_victim_gets_a_few_handshakes_at_most(secure: Network, silent: bool) -> None:
    """It shows no certificate of the peer that was named, and is given up."""
    async with Victim(silent=silent).listening() as victim:
        named = peer_pb2.Source(peer_id="peer-2", address=victim.address)
        request = peer_pb2.ReplicateFileRequest(name="evil", content_id=bytes(32), sources=[named])
        with pytest.raises(grpc.aio.AioRpcError):
            await secure.at_peer(secure.member("command"), "ReplicateFile", request)
        await asyncio.sleep(1)
        assert victim.dialled <= 10


async def test_a_part_does_not_pass_for_another(secure: Network) -> None:
    """Who controls an address shows the certificate of who was named, or gets no call: peer 2 as peer 1."""
    request = peer_pb2.GetManifestRequest(content_id=secure.contents["secret.bin"].raw)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await secure.member("command").call(
            secure.story.peers[1].address, "peer-1.peer.minga", "/minga.peer.v1.PeerService/GetManifest", request
        )
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
