"""Following the digests of a file while a peer fetches it from its origin."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass

from minga_core.chunks import MAX_CONTENT_BYTES
from minga_core.errors import InvalidArgumentError
from minga_core.ids import DIGEST_BYTES
from minga_engine.wire.connections import PeerConnections, peer_errors
from minga_engine.wire.messages import MAX_PIECE_BYTES, SourceAddress
from minga_protos.peer.v1 import peer_pb2 as pb

MAX_DIGESTS_BYTES = MAX_PIECE_BYTES // DIGEST_BYTES * DIGEST_BYTES
"""Of digests in one message."""
HEAD_BYTES = 16 * 1024
"""Of a file, sent ahead of its chunks (contract: peer.proto). To sixteen followers that is the smallest chunk."""


@dataclass(frozen=True, slots=True)
class DigestStep:
    """What has become known of a file. Without anything in it the fetcher is alive, and no more."""

    size_bytes: int = 0
    """Of the file, once it is known."""
    digests: bytes = b""
    """BLAKE3 of chunks that follow each other, DIGEST_BYTES each."""
    whole: bool = False
    """All of it is verified. The last step."""
    first: int = 0
    """The chunk that the first digest is of."""
    head: bytes = b""
    """The first HEAD_BYTES of the file; else empty."""


class DigestClient:
    """Asks peers that fetch."""

    def __init__(self, connections: PeerConnections) -> None:
        self._connections = connections

    async def follow(self, source: SourceAddress, transfer_id: bytes) -> AsyncGenerator[DigestStep, None]:
        """The steps of a transfer, each as it comes: all digests that are known, then the others, in any order.

        Raises PeerUnavailableError when the peer is lost, ContentNotHeldError when it has no such transfer,
        ContentChangedError when the file is not what it should be, InvalidArgumentError for what is no step.
        """
        async with self._connections.to(source) as peer:
            call = peer.stub.FollowDigests(pb.FollowDigestsRequest(transfer_id=transfer_id))
            try:
                with peer_errors(peer.address):
                    async for message in call:
                        yield _step(message)
            finally:
                call.cancel()


def _step(message: pb.FollowDigestsResponse) -> DigestStep:
    if len(message.digests) % DIGEST_BYTES or not 0 <= message.size_bytes <= MAX_CONTENT_BYTES:
        raise InvalidArgumentError("these are not digests of a file")
    if len(message.head) not in (0, HEAD_BYTES):
        raise InvalidArgumentError("this is not the beginning of a file")
    return DigestStep(message.size_bytes, message.digests, message.whole, message.first_index, message.head)
