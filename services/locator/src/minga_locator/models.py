"""What the REST service says and takes, as the OpenAPI document shows it. Sizes are bytes, times RFC 3339 in UTC."""

import random
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from minga_core.chunks import MAX_CONTENT_BYTES
from minga_core.names import Name
from minga_directory.ports import CatalogueEntry, DirectoryStats, Holder, PeerRecord, Placement, Version

MAX_REPLICAS = 20
MAX_LOOKUP_NAMES = 256

ADDRESS = "host:port of its gRPC service."
ZONE = "Empty when it has none."


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


Time = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
"""RFC 3339 in UTC with nine digits of a second: instants of files are nanoseconds, and copies carry them on exactly."""


_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - the zone is written by hand


def time_of(nanos: int) -> str:
    """The time that is so many nanoseconds after 1970."""
    seconds, rest = divmod(nanos, 10**9)
    whole = (_EPOCH + timedelta(seconds=seconds)).isoformat()
    return f"{whole}.{rest:09d}Z"


class ListedFile(_Model):
    """A name of the catalogue with its default version. From hints: somebody shared it a moment ago."""

    name: str
    content_id: str = Field(description="`b3:` and 64 hex digits.")
    size_bytes: int
    published_time: Time
    version_count: int = Field(description="Contents under that name; this is the newest published.")

    @classmethod
    def of(cls, entry: CatalogueEntry) -> "ListedFile":
        """The entry as shown."""
        return cls(
            name=entry.name,
            content_id=str(entry.content_id),
            size_bytes=entry.size_bytes,
            published_time=time_of(entry.published_ns),
            version_count=entry.version_count,
        )


class FileList(_Model):
    """A page of the catalogue, in byte order of the names."""

    files: list[ListedFile] = Field(description="May be empty though more pages follow.")
    next_page_token: str = Field(description="Pass as `page_token` for the next page; empty at the end.")


class Source(_Model):
    """A living peer that has the content, or is getting it."""

    peer_id: str
    address: str = Field(description=ADDRESS)
    zone: str = Field(description=ZONE)
    state: Literal["complete", "partial"]

    @classmethod
    def of(cls, holder: Holder) -> "Source":
        """The holder as shown."""
        return cls(peer_id=holder.peer_id, address=holder.address, zone=holder.zone, state=holder.state.value)


class FileVersion(_Model):
    """One content under a name."""

    content_id: str
    size_bytes: int
    published_time: Time = Field(description="When it was first shared under that name.")
    complete_count: int = Field(description="Living peers that have all of it.")
    partial_count: int = Field(description="Living peers that have some of it.")
    sources: list[Source] = Field(description="At most 20 of them, in random order.")

    @classmethod
    def of(cls, version: Version) -> "FileVersion":
        """The version as shown, with its sources in an order of their own."""
        return cls(**_version_fields(version))


def _version_fields(version: Version) -> dict[str, Any]:
    # A cached version answers many clients; each of them gets another order, or all would begin with one source.
    holders = random.sample(version.holders, len(version.holders))
    return {
        "content_id": str(version.content_id),
        "size_bytes": version.size_bytes,
        "published_time": time_of(version.published_ns),
        "complete_count": version.complete_count,
        "partial_count": version.partial_count,
        "sources": [Source.of(holder) for holder in holders],
    }


class FileInfo(_Model):
    """A name and its versions, the newest published first."""

    name: str
    versions: list[FileVersion]


class LookupRequest(_Model):
    """Names that somebody wants to know about at once."""

    model_config = ConfigDict(strict=True)

    names: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=4096)]], Field(min_length=1, max_length=MAX_LOOKUP_NAMES)
    ]


class FoundFile(_Model):
    """A name and its default version."""

    name: str
    version: FileVersion | None = Field(description="The newest published; null when nobody shares that name.")


class FoundFileList(_Model):
    """What was found of each name that was asked for, in their order."""

    files: list[FoundFile]


class ContentInfo(FileVersion):
    """A content, whatever it is called."""

    names: list[str] = Field(description="At most 100 of its names.")

    @classmethod
    def named(cls, version: Version, names: Sequence[Name]) -> "ContentInfo":
        """The content as shown."""
        return cls(**_version_fields(version), names=list(names))


class PlacementRequest(_Model):
    """A file that somebody wants to upload."""

    model_config = ConfigDict(strict=True)

    name: Annotated[str, Field(min_length=1, max_length=4096)]
    size_bytes: Annotated[int, Field(ge=0, le=MAX_CONTENT_BYTES)]
    replicas: Annotated[int, Field(ge=1, le=MAX_REPLICAS)] = 1
    content_id: str | None = Field(
        default=None, description="Peers that hold this content are left out; without it, those that hold the name."
    )


class PlacedPeer(_Model):
    """A peer to upload to."""

    peer_id: str
    address: str = Field(description=ADDRESS)
    zone: str = Field(description=ZONE)
    free_bytes: int = Field(description="What it had room for when it last spoke.")

    @classmethod
    def of(cls, peer: Placement) -> "PlacedPeer":
        """The peer as shown."""
        return cls(peer_id=peer.peer_id, address=peer.address, zone=peer.zone, free_bytes=peer.free_bytes)


class PlacementList(_Model):
    """Peers to upload to, by round robin over those with room; fewer than asked for when there are not more."""

    placements: list[PlacedPeer]


class PeerInfo(_Model):
    """A living peer."""

    peer_id: str
    address: str = Field(description=ADDRESS)
    zone: str = Field(description=ZONE)
    generation: int = Field(description="Greater with each start of the peer; up to 63 bits.")
    capacity_bytes: int = Field(description="What it is willing to hold in all.")
    free_bytes: int = Field(description="What it had room for when it last spoke.")
    file_count: int = Field(description="Rows of its file table.")
    active_serves: int = Field(description="Chunk streams that it was serving when it last spoke.")
    table_revision: int = Field(description="Grows with each change of its file table.")
    software_version: str
    lease_remaining_seconds: float = Field(description="It is listed for so long, unless it speaks again.")

    @classmethod
    def of(cls, peer: PeerRecord) -> "PeerInfo":
        """The peer as shown."""
        info = peer.info
        return cls(
            peer_id=info.peer_id,
            address=info.address,
            zone=info.zone,
            generation=info.generation,
            capacity_bytes=info.capacity_bytes,
            free_bytes=info.free_bytes,
            file_count=peer.file_count,
            active_serves=peer.active_serves,
            table_revision=peer.table_revision,
            software_version=info.software_version,
            lease_remaining_seconds=round(peer.lease_remaining.total_seconds(), 3),
        )


class PeerList(_Model):
    """A page of the living peers, in order of their ids."""

    peers: list[PeerInfo]
    next_page_token: str = Field(description="Pass as `page_token` for the next page; empty at the end.")


class Stats(_Model):
    """The directory in figures."""

    live_peers: int
    names: int = Field(description="Names in the catalogue; may count one that died seconds ago.")
    capacity_bytes: int = Field(description="Of all living peers.")
    free_bytes: int = Field(description="Of all living peers.")

    @classmethod
    def of(cls, stats: DirectoryStats) -> "Stats":
        """The figures as shown."""
        return cls(
            live_peers=stats.live_peers,
            names=stats.names,
            capacity_bytes=stats.capacity_bytes,
            free_bytes=stats.free_bytes,
        )


class Problem(BaseModel):
    """What went wrong (RFC 9457). `code` is stable and meant for programs, `detail` for people."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    instance: str
    code: str
    retry_after_seconds: int | None = Field(default=None, description="The same request may succeed after so long.")
