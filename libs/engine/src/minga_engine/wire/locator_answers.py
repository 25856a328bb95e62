"""The locator's answers as checked values: the classes, and what reads them from JSON.

Names, ids and addresses pass the parsers of `minga_core`. The functions raise what `json_fields` raises, and KeyError.
"""

from base64 import b64decode
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import Any

from minga_core.ids import (
    Address,
    ContentId,
    PeerId,
    parse_address,
    parse_gateway_url,
    parse_peer_id,
    parse_zone,
)
from minga_core.names import Name, parse_name
from minga_core.records import MAX_TICKET_BYTES, TAG_BYTES, HoldingState
from minga_engine.wire.json_fields import count, flag, items, nanos, seconds, text


@dataclass(frozen=True, slots=True)
class ListedFile:
    """A name of the catalogue, with its default version.

    >>> next(client.ls("models/")).size_bytes
    14
    """

    name: Name
    content_id: ContentId
    size_bytes: int
    published_ns: int
    version_count: int
    newer_incomplete: bool
    """A newer version has no complete holder: its upload is under way or was broken off, or its holders are gone."""


@dataclass(frozen=True, slots=True)
class FilePage:
    """A page of the catalogue."""

    files: tuple[ListedFile, ...]
    next_page_token: str
    """Empty at the end."""


@dataclass(frozen=True, slots=True)
class FileSource:
    """A living peer that has a content, or a part of it.

    >>> "peer-1" in {source.peer_id for source in client.info("models/model.bin").versions[0].sources}
    True
    """

    peer_id: PeerId
    address: Address
    zone: str
    state: HoldingState


@dataclass(frozen=True, slots=True)
class FileVersion:
    """One content, with at most 20 of its holders in random order. modified_ns and executable: of the file that was
    published last.

    >>> client.info("models/model.bin").versions[0].size_bytes
    14
    """

    content_id: ContentId
    size_bytes: int
    published_ns: int
    modified_ns: int
    executable: bool
    complete_count: int
    partial_count: int
    sources: tuple[FileSource, ...]
    tag: bytes = b""
    """The proof of published_ns; empty in a network without tags, and of a content without a name."""


@dataclass(frozen=True, slots=True)
class FileAnswer:
    """A name's versions, the newest published first."""

    name: Name
    versions: tuple[FileVersion, ...]
    newer_incomplete: bool = False
    """A newer version than the default has no complete holder."""


@dataclass(frozen=True, slots=True)
class ContentAnswer:
    """A content, whatever it is called."""

    version: FileVersion
    names: tuple[Name, ...]


@dataclass(frozen=True, slots=True)
class ListedPeer:
    """A living peer.

    >>> next(client.peers()).peer_id
    'peer-1'
    """

    peer_id: PeerId
    address: Address
    zone: str
    capacity_bytes: int
    free_bytes: int
    file_count: int
    active_serves: int
    software_version: str
    lease_remaining: timedelta
    gateway_url: str
    """Of its HTTP gateway; empty when others do not reach it."""


@dataclass(frozen=True, slots=True)
class PlacedPeer:
    """A peer chosen for an upload."""

    peer_id: PeerId
    address: Address
    zone: str
    free_bytes: int


@dataclass(frozen=True, slots=True)
class Placements:
    """Where an upload may go."""

    peers: list[PlacedPeer]
    ticket: bytes
    """The permission to publish it, which peers show to the registry; empty in a network without tickets."""


@dataclass(frozen=True, slots=True)
class DirectoryFigures:
    """The directory in figures.

    >>> client.stats().live_peers
    3
    """

    live_peers: int
    names: int
    capacity_bytes: int
    free_bytes: int
    lower_bound: bool
    """Not all peers were counted: there are at least so many names and bytes."""


def file_version(item: Any) -> FileVersion:
    """The version of a file that `item` is."""
    return FileVersion(
        ContentId.parse(item["content_id"]),
        count(item["size_bytes"]),
        nanos(item["published_time"]),
        nanos(item["modified_time"]),
        flag(item["executable"]),
        count(item["complete_count"]),
        count(item["partial_count"]),
        tuple(_source(source) for source in items(item["sources"])),
        _proof(item["tag"], TAG_BYTES),
    )


def _proof(value: Any, most_bytes: int) -> bytes:
    """A tag or a ticket. Raises ValueError."""
    if value == "":
        return b""
    proof = b64decode(text(value), altchars=b"-_", validate=True)
    if len(proof) > most_bytes:
        raise ValueError(f"a tag or a ticket has at most {most_bytes} bytes")
    return proof


def _source(item: Any) -> FileSource:
    return _checked_source(item["peer_id"], item["address"], item["zone"], item["state"])


# A peer is met with every file that it has.
@lru_cache(maxsize=4_096)
def _checked_source(peer_id: str, address: str, zone: str, state: str) -> FileSource:
    return FileSource(parse_peer_id(peer_id), parse_address(address), parse_zone(zone), HoldingState(state))


def listed_file(item: Any) -> ListedFile:
    """The name of the catalogue that `item` is."""
    return ListedFile(
        parse_name(item["name"]),
        ContentId.parse(item["content_id"]),
        count(item["size_bytes"]),
        nanos(item["published_time"]),
        count(item["version_count"]),
        flag(item["newer_incomplete"]),
    )


def listed_peer(item: Any) -> ListedPeer:
    """The peer that `item` is."""
    return ListedPeer(
        parse_peer_id(item["peer_id"]),
        parse_address(item["address"]),
        parse_zone(item["zone"]),
        count(item["capacity_bytes"]),
        count(item["free_bytes"]),
        count(item["file_count"]),
        count(item["active_serves"]),
        text(item["software_version"]),
        seconds(item["lease_remaining_seconds"]),
        parse_gateway_url(text(item["gateway_url"])),
    )


def _placed(item: Any) -> PlacedPeer:
    return PlacedPeer(
        parse_peer_id(item["peer_id"]),
        parse_address(item["address"]),
        parse_zone(item["zone"]),
        count(item["free_bytes"]),
    )


def placements(answer: Any, replicas: int) -> Placements:
    """Where an upload may go, by `answer`: to so many peers at most."""
    peers = [_placed(item) for item in items(answer["placements"], replicas)]
    return Placements(peers, _proof(answer["ticket"], MAX_TICKET_BYTES))


def directory_figures(answer: Any) -> DirectoryFigures:
    """The figures that `answer` is."""
    return DirectoryFigures(
        count(answer["live_peers"]),
        count(answer["names"]),
        count(answer["capacity_bytes"]),
        count(answer["free_bytes"]),
        flag(answer["lower_bound"]),
    )
