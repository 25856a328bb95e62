"""Between the peer contract's messages and our own values; pb2 classes stop here and in the adapters that call this."""

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass

from google.protobuf.timestamp_pb2 import Timestamp

from minga_core.chunks import ChunkSet
from minga_core.errors import InvalidArgumentError
from minga_core.ids import Address, PeerId, parse_address, parse_peer_id
from minga_protos.peer.v1 import peer_pb2 as pb

PEER_SERVICE = "minga.peer.v1.PeerService"
PEER_METHODS = tuple(pb.DESCRIPTOR.services_by_name["PeerService"].methods_by_name)
DATA_FIELD_OF_FETCH = 2
"""`FetchChunksResponse.data`"""
DATA_FIELD_OF_STORE = 4
"""`StoreFileRequest.data`"""
MAX_SMALL_FILES = 256
"""Contents in a FetchFilesRequest (contract: peer.proto)."""
MAX_RANGES = 1024
"""Ranges of chunks in a request (contract: peer.proto)."""
MAX_SOURCES = 20
"""Sources in a message (contract: peer.proto)."""


@dataclass(frozen=True, slots=True)
class SourceAddress:
    """A peer that may have a content, and where it is."""

    peer_id: PeerId
    address: Address
    complete: bool = True
    same_zone: bool = False
    bulk_port: int = 0
    """Where it serves over HTTP; 0: not known."""


def parse_bulk_port(port: int) -> int:
    """A bulk port from outside; 0 for none. Raises InvalidArgumentError."""
    if not 0 <= port <= 65535:
        raise InvalidArgumentError(f"{port} is no port")
    return port


def ranges_to_pb(chunks: ChunkSet) -> list[pb.ChunkRange]:
    """A chunk set as the contract's ranges."""
    return [pb.ChunkRange(start_index=start, end_index=end) for start, end in chunks.ranges()]


def ranges_from_pb(count: int, ranges: Iterable[pb.ChunkRange]) -> ChunkSet:
    """The chunk set that ranges from outside mean. Raises InvalidArgumentError."""
    return ChunkSet.from_ranges(count, ((item.start_index, item.end_index) for item in ranges))


def timestamp_of(nanos: int) -> Timestamp:
    """A protobuf Timestamp of nanoseconds since 1970."""
    return Timestamp(seconds=nanos // 10**9, nanos=nanos % 10**9)


def nanos_of(timestamp: Timestamp) -> int:
    """Nanoseconds since 1970 of a Timestamp from outside. Raises InvalidArgumentError outside of 1970 to 2262."""
    nanos = timestamp.seconds * 10**9 + timestamp.nanos
    if not 0 <= nanos < 1 << 63 or not 0 <= timestamp.nanos < 10**9:
        raise InvalidArgumentError("a time outside of 1970 to 2262")
    return nanos


def sources_to_pb(sources: Iterable[SourceAddress]) -> list[pb.Source]:
    """Sources as the contract's messages."""
    return [pb.Source(peer_id=item.peer_id, address=item.address, bulk_port=item.bulk_port) for item in sources]


def source_from_caller(request: pb.FetchChunksRequest) -> SourceAddress | None:
    """Where the caller says that it serves what it has; None when it does not, or what it says is malformed."""
    found = sources_from_pb([pb.Source(peer_id=request.peer_id, address=request.address, bulk_port=request.bulk_port)])
    return found[0] if found else None


def sources_from_pb(sources: Iterable[pb.Source]) -> tuple[SourceAddress, ...]:
    """Sources from outside, at most 20; those that are malformed are left out."""
    found: list[SourceAddress] = []
    for source in sources:
        with contextlib.suppress(InvalidArgumentError):
            found.append(
                SourceAddress(
                    parse_peer_id(source.peer_id),
                    parse_address(source.address),
                    complete=False,
                    bulk_port=parse_bulk_port(source.bulk_port),
                )
            )
    return tuple(found[:MAX_SOURCES])
