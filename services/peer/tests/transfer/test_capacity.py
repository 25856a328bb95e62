"""What one caller may have of a peer, and what the others still get."""

import asyncio
from typing import Any

import grpc.aio
import pytest

from minga_core.errors import BusyError
from minga_peer.clients.wire import PEER_SERVICE
from minga_peer.transfer import capacity
from minga_protos.peer.v1 import peer_pb2 as pb
from minga_runtime.channels import make_channel
from minga_runtime.shares import Shares, caller_of

from .conftest import Network, eventually, noise


async def taken(call: Any) -> None:
    """All answers at last."""
    while await call.read() is not grpc.aio.EOF:
        pass


async def test_a_caller_that_takes_nothing_loses_its_turn(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over gRPC too; its call is over, and its turn is somebody else's."""
    monkeypatch.setattr(capacity, "STALL_SECONDS", 0.3)
    network.bulk = False
    seed = await network.peer("seed")
    row = await seed.shares("file.bin", noise(4 * 1024 * 1024))
    request = pb.FetchChunksRequest(
        content_id=row.key.content_id.raw, wanted=[pb.ChunkRange(start_index=0, end_index=16)], max_chunks=16
    )
    async with make_channel(str(seed.source.address)) as channel:
        call = channel.unary_stream(f"/{PEER_SERVICE}/FetchChunks", pb.FetchChunksRequest.SerializeToString)(request)
        await eventually(lambda: seed.turns.active_count == 1, "it has its turn")
        await eventually(lambda: seed.turns.active_count == 0, "it has lost its turn")
        async with asyncio.timeout(10):
            with pytest.raises((grpc.aio.AioRpcError, asyncio.CancelledError)):
                await taken(call)


def test_no_caller_holds_more_than_its_share() -> None:
    """Half, unless it is the first and asks for one large thing; what it gives back it may have again."""
    shares = Shares("bytes", 100)
    with shares.taken("a", 30), shares.taken("b", 10):
        with pytest.raises(BusyError, match="30 bytes of yours"), shares.taken("a", 21):
            pass
        with shares.taken("a", 20), shares.taken("c", 40), pytest.raises(BusyError), shares.taken("d", 1):
            pass
    assert shares.taken_count == 0
    with shares.taken("a", 90), shares.taken("b", 10):
        assert shares.taken_count == 100
    with shares.taken("a", 500):
        pass


@pytest.mark.parametrize(
    ("peer", "caller"),
    [
        ("ipv4:10.0.0.1:4711", "ipv4:10.0.0.1"),
        ("ipv6:%5B::1%5D:4711", "ipv6:%5B::1%5D"),
        ("unix:", "unix"),
        ("unix:/run/x:1", "unix"),
    ],
)
def test_a_caller_is_its_host(peer: str, caller: str) -> None:
    """Whatever port it calls from."""
    assert caller_of(peer) == caller
