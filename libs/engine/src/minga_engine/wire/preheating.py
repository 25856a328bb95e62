"""Asking a peer to fetch what lies elsewhere, and to keep it."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass

from minga_engine.wire.connections import PeerConnections, peer_errors
from minga_engine.wire.messages import SourceAddress
from minga_protos.peer.v1 import peer_pb2 as pb

MAX_RESOLVED = 100
"""Characters: a digest has 71."""


@dataclass(frozen=True, slots=True)
class PreheatOrder:
    """What a peer is asked to fetch. item: a URL, `oci://…` or `hf://…`. platform: of an image; empty: the peer's own.
    pin: keep it whatever the peer's limit."""

    item: str
    platform: str = ""
    pin: bool = False


@dataclass(frozen=True, slots=True)
class PreheatStep:
    """How far a peer is.

    >>> client.preheat("models/model.bin", on="1").peers[0].step.held_bytes
    14
    """

    held_bytes: int = 0
    size_bytes: int = 0
    """0 until it is known."""
    file_count: int = 0
    resolved: str = ""
    """What it is at this moment: a digest or a commit; empty while that is not known, and where there is neither."""
    local_bytes: int = 0
    """Of held_bytes: those that were there before."""
    peers_bytes: int = 0
    """Of held_bytes: those that came from other peers."""
    upstream_bytes: int = 0
    """Of held_bytes: those that this peer fetched from their origin."""


async def preheat_peer(
    connections: PeerConnections, target: SourceAddress, order: PreheatOrder
) -> AsyncGenerator[PreheatStep, None]:
    """Ask a peer to fetch; ends when all of it is there. Safe to retry.

    Raises PeerUnavailableError when the peer cannot be reached, and its own error when it answers with one.
    """
    request = pb.PreheatRequest(item=order.item, platform=order.platform, pin=order.pin)
    async with connections.to(target) as peer:
        call = peer.stub.Preheat(request, metadata=connections.grant_metadata(peer))
        try:
            with peer_errors(target.address):
                async for message in call:
                    yield _step(message)
        finally:
            call.cancel()


def _step(message: pb.PreheatResponse) -> PreheatStep:
    return PreheatStep(
        message.held_bytes,
        message.size_bytes,
        message.file_count,
        message.resolved[:MAX_RESOLVED],
        message.local_bytes,
        message.peers_bytes,
        message.upstream_bytes,
    )
