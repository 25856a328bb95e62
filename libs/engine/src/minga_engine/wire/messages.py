"""Between the peer contract's messages and plain values; generated classes stop in this folder and in servers."""

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass

from google.protobuf.timestamp_pb2 import Timestamp

from minga_core.attributes import FileAttributes
from minga_core.chunks import ChunkSet
from minga_core.errors import InvalidArgumentError
from minga_core.ids import Address, PeerId, parse_address, parse_peer_id
from minga_core.records import clamp_instant_ns
from minga_protos.peer.v1 import peer_pb2 as pb

PEER_SERVICE = "minga.peer.v1.PeerService"
PEER_METHODS = tuple(pb.DESCRIPTOR.services_by_name["PeerService"].methods_by_name)
MAX_PIECE_BYTES = 1024 * 1024
"""Largest `data` or manifest part in one message (contract: peer.proto)."""
MAX_SMALL_FILES = 2_000
"""Contents in a request for small files (docs/http.md)."""
MAX_SOURCES = 20
"""Sources in a message (contract: peer.proto)."""


@dataclass(frozen=True, slots=True)
class SourceAddress:
    """A peer that may have a content, and where it is reached."""

    peer_id: PeerId
    address: Address
    complete: bool = True
    same_zone: bool = False
    http_port: int = 0
    """Port of the same host on which it serves chunks; 0: not known."""
    listed: bool = False
    """The directory names it. What others name may be anybody's address."""


def parse_http_port(port: int) -> int:
    """The same port; 0 stands for "not known". Raises InvalidArgumentError."""
    if not 0 <= port <= 65535:
        raise InvalidArgumentError(f"invalid port {port} (1 to 65535)")
    return port


def ranges_to_pb(chunks: ChunkSet) -> list[pb.ChunkRange]:
    """A chunk set as the contract's ranges."""
    return [pb.ChunkRange(start_index=start, end_index=end) for start, end in chunks.ranges()]


def ranges_from_pb(count: int, ranges: Iterable[pb.ChunkRange]) -> ChunkSet:
    """The chunk set of received ranges. Raises InvalidArgumentError."""
    return ChunkSet.from_ranges(count, ((item.start_index, item.end_index) for item in ranges))


def timestamp_of(nanos: int) -> Timestamp:
    """A protobuf Timestamp of nanoseconds since 1970."""
    return Timestamp(seconds=nanos // 10**9, nanos=nanos % 10**9)


def nanos_of(timestamp: Timestamp) -> int:
    """Nanoseconds since 1970 of a received Timestamp, clamped as `clamp_instant_ns` does."""
    return clamp_instant_ns(timestamp.seconds * 10**9 + timestamp.nanos)


def attributes_of(request: pb.StoreBegin | pb.ReplicateFileRequest) -> FileAttributes:
    """The attributes that a file is to get."""
    modified_ns = nanos_of(request.modified_time) if request.HasField("modified_time") else None
    return FileAttributes(modified_ns, request.executable)


def modified_time_of(attributes: FileAttributes) -> Timestamp | None:
    """The modification time of a message; None leaves it unset."""
    return None if attributes.modified_ns is None else timestamp_of(attributes.modified_ns)


def sources_to_pb(sources: Iterable[SourceAddress]) -> list[pb.Source]:
    """Sources as the contract's messages."""
    return [pb.Source(peer_id=item.peer_id, address=item.address, http_port=item.http_port) for item in sources]


def sources_from_pb(sources: Iterable[pb.Source]) -> tuple[SourceAddress, ...]:
    """Received sources, at most 20; malformed ones are left out."""
    found: list[SourceAddress] = []
    for source in sources:
        with contextlib.suppress(InvalidArgumentError):
            peer_id, address = parse_peer_id(source.peer_id), parse_address(source.address)
            port = parse_http_port(source.http_port)
            found.append(SourceAddress(peer_id, address, complete=False, http_port=port))
    return tuple(found[:MAX_SOURCES])
