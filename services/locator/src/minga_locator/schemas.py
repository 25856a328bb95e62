"""The shape of every request and answer: the OpenAPI document's schemas and the JSON bytes come from these structs.

Sizes are bytes, times RFC 3339 in UTC.
"""

from base64 import urlsafe_b64encode
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from itertools import starmap
from random import random
from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType
from msgspec.structs import asdict

from minga_core.chunks import MAX_CONTENT_BYTES
from minga_core.names import Name
from minga_core.records import MAX_REPLICAS, HoldingState, RowKey
from minga_directory.directory import CatalogEntry, PeerRecord, Version
from minga_runtime.trust.publication_keys import PublicationKeys

MAX_LOOKUP_NAMES = 1000
MAX_PAGE_SIZE = 1000

NameText = Annotated[str, Meta(min_length=1, max_length=4096)]
Address = Annotated[str, Meta(description="host:port of its gRPC service.")]
Zone = Annotated[str, Meta(description="Empty when it has none.")]
FreeBytes = Annotated[int, Meta(description="Its free space as of its last heartbeat.")]
NewerIncomplete = Annotated[
    bool,
    Meta(
        description="A newer version of that name has no complete holder: its upload is under way or was broken off, "
        "or its holders are gone."
    ),
]
NextPageToken = Annotated[str, Meta(description="Pass as `page_token` for the next page; empty at the end.")]
PageSize = Annotated[int, Meta(ge=1, description=f"Maximum number of entries; capped at {MAX_PAGE_SIZE:,}.")]
PageToken = Annotated[str, Meta(max_length=4096, description="From `next_page_token`; empty for the first page.")]
TIME = {"format": "date-time"}
"""RFC 3339 in UTC with nine digits of a second: publication times are nanoseconds, and copies keep them exactly."""

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - rfc3339 writes the zone


def rfc3339(nanos: int) -> str:
    """The time that is `nanos` nanoseconds after the epoch, exactly."""
    minutes, rest = divmod(nanos, 60 * 10**9)
    digits = f"{rest:011d}"
    return f"{_minute(minutes)}{digits[:2]}.{digits[2:]}Z"


# Files are mostly written and published many in a minute, and each answer has several times.
@lru_cache(maxsize=4_096)
def _minute(minutes: int) -> str:
    """As `2023-11-14T22:13:`."""
    return (_EPOCH + timedelta(minutes=minutes)).isoformat()[:17]


class _Shape(Struct, forbid_unknown_fields=True, gc=False):
    """Base of all shapes. `gc=False`: they hold plain values without cycles, and the cache keeps thousands of them."""


class ListFilesQuery(Struct):
    """Parameters of listFiles."""

    prefix: Annotated[str, Meta(max_length=4096, description="Names that begin with this.")] = ""
    query: Annotated[
        str,
        Meta(
            max_length=1024,
            description="A glob that the whole name matches when it has `*`, `?` or `[` (`*` spans `/`), else a part "
            "of the name; case is ignored.",
        ),
    ] = ""
    folders: Annotated[
        bool,
        Meta(
            description="List what is directly in `prefix` alone: files, and folders by their names. Not with `query`, "
            "which finds files wherever they are."
        ),
    ] = False
    page_size: PageSize = 100
    page_token: PageToken = ""
    after: Annotated[
        str,
        Meta(
            max_length=4096,
            description="Names behind this text in byte order alone, where there is no `page_token`: to go on behind a "
            "folder, its name with `/` and U+10FFFF.",
        ),
    ] = ""


class VersionQuery(Struct):
    """Parameters of getFile."""

    content_id: Annotated[
        Annotated[str, Meta(max_length=100)] | None, Meta(description="Return this version only.")
    ] = None


class ListPeersQuery(Struct):
    """Parameters of listPeers."""

    page_size: PageSize = 100
    page_token: PageToken = ""


class ListedFile(_Shape):
    """A name in the catalogue with its default version. The holders of a name's only version are not checked here."""

    name: str
    content_id: Annotated[str, Meta(description="`b3:` and 64 hex digits.")]
    size_bytes: int
    published_time: Annotated[str, Meta(extra_json_schema=TIME)]
    version_count: Annotated[int, Meta(description="Contents under that name.")]
    newer_incomplete: NewerIncomplete

    @classmethod
    def of(cls, entry: CatalogEntry) -> "ListedFile":
        """The answer's form of a catalogue entry."""
        published = rfc3339(entry.published_ns)
        return cls(
            entry.name,
            str(entry.content_id),
            entry.size_bytes,
            published,
            entry.version_count,
            entry.newer_incomplete,
        )


class FileList(_Shape):
    """A page of the catalogue, in byte order of the names."""

    files: Annotated[list[ListedFile], Meta(description="May be empty though more pages follow.")]
    folders: Annotated[
        list[str], Meta(description="With `folders` alone: beginnings of names, each with a `/` at its end.")
    ]
    next_page_token: NextPageToken


class Source(_Shape):
    """A living peer that has the content, or is downloading it."""

    peer_id: str
    address: Address
    zone: Zone
    state: Annotated[str, Meta(extra_json_schema={"enum": [state.value for state in HoldingState]})]


class FileVersion(_Shape):
    """One content under a name."""

    content_id: str
    size_bytes: int
    published_time: Annotated[
        str, Meta(extra_json_schema=TIME, description="When that name was given this content, by Redis' clock.")
    ]
    tag: Annotated[
        str,
        Meta(
            description="Base64url: the proof of `published_time`, which copies keep and show to the registry. Empty "
            "in a network without a publication key, and where no name was asked for."
        ),
    ]
    modified_time: Annotated[
        str, Meta(extra_json_schema=TIME, description="Modification time of the file that was published last.")
    ]
    executable: Annotated[bool, Meta(description="Whether the owner of that file may execute it.")]
    complete_count: Annotated[int, Meta(description="Living peers that have all of it.")]
    partial_count: Annotated[int, Meta(description="Living peers that have some of it.")]
    sources: Annotated[list[Source], Meta(description="At most 20 of them, in random order.")]

    @classmethod
    def of(cls, version: Version, name: Name | None = None, keys: PublicationKeys | None = None) -> "FileVersion":
        """The answer's form of a version of that name."""
        tag = "" if keys is None or name is None else _tag(version, name, keys)
        return cls(
            str(version.content_id),
            version.size_bytes,
            rfc3339(version.published_ns),
            tag,
            rfc3339(version.modified_ns),
            version.executable,
            version.complete_count,
            version.partial_count,
            list(starmap(Source, version.holders)),
        )

    def shuffle(self) -> None:
        """Put the sources in a random order. Do it for each answer: one from the cache goes to many clients, and they
        must not all begin with the same source."""
        # A third of what `random.shuffle` costs.
        self.sources.sort(key=lambda _: random())  # noqa: S311 - not for secrets


def _tag(version: Version, name: Name, keys: PublicationKeys) -> str:
    return urlsafe_b64encode(keys.tag(RowKey(name, version.content_id), version.published_ns)).decode()


class FileInfo(_Shape):
    """A name and its versions."""

    name: str
    versions: Annotated[list[FileVersion], Meta(description="The default first, then the newest published first.")]
    newer_incomplete: NewerIncomplete


class LookupRequest(_Shape):
    """Names to look up in one request."""

    names: Annotated[list[NameText], Meta(min_length=1, max_length=MAX_LOOKUP_NAMES)]


class FoundFile(_Shape):
    """A name and its default version."""

    name: str
    version: Annotated[FileVersion | None, Meta(description="Null when no living peer has that name.")]
    newer_incomplete: NewerIncomplete

    @classmethod
    def of(cls, name: Name, version: Version | None, keys: PublicationKeys | None = None) -> "FoundFile":
        """The answer's form of a look-up's result."""
        if version is None:
            return cls(name, None, False)
        return cls(name, FileVersion.of(version, name, keys), version.newer_incomplete)


class FoundFileList(_Shape):
    """The result for each requested name, in the order of the request."""

    files: list[FoundFile]


class ContentInfo(FileVersion):
    """A content, under whatever name."""

    names: Annotated[list[str], Meta(description="At most 100 of its names.")]

    @classmethod
    def named(cls, version: Version, names: Sequence[Name]) -> "ContentInfo":
        """The answer's form of a version and its names."""
        return cls(**asdict(FileVersion.of(version)), names=list(names))


class PlacementRequest(_Shape):
    """A file to upload."""

    name: NameText
    size_bytes: Annotated[int, Meta(ge=0, le=MAX_CONTENT_BYTES)]
    replicas: Annotated[int, Meta(ge=0, le=MAX_REPLICAS, description="0: no peers, only a ticket.")] = 1
    content_id: Annotated[
        str | None,
        Meta(description="Peers that hold this content are left out; without it, those that hold the name."),
    ] = None
    publish: Annotated[
        str | None, Meta(description="Id of the content that is uploaded, for which the answer has a ticket.")
    ] = None


class PlacedPeer(_Shape):
    """A peer to upload to."""

    peer_id: str
    address: Address
    zone: Zone
    free_bytes: FreeBytes


class PlacementList(_Shape):
    """Peers to upload to, by round robin over those with room; fewer than requested when there are not more."""

    placements: list[PlacedPeer]
    ticket: Annotated[
        str,
        Meta(
            description="Base64url: permits peers to publish `publish` under that name for a day; they take it with "
            "the upload. Empty in a network without a publication key, and without `publish`."
        ),
    ]


class PeerInfo(_Shape):
    """A living peer."""

    peer_id: str
    address: Address
    zone: Zone
    capacity_bytes: Annotated[int, Meta(description="The most that it holds in all.")]
    free_bytes: FreeBytes
    file_count: Annotated[int, Meta(description="Rows of its file table.")]
    active_serves: Annotated[int, Meta(description="Chunk streams that it was serving at its last heartbeat.")]
    software_version: str
    gateway_url: Annotated[
        str, Meta(description="Of its HTTP gateway: scheme, host and port. Empty when others do not reach it.")
    ]
    lease_remaining_seconds: Annotated[float, Meta(description="Listed for this long unless it renews its lease.")]

    @classmethod
    def of(cls, peer: PeerRecord) -> "PeerInfo":
        """The answer's form of a peer's record."""
        info = peer.info
        return cls(
            peer_id=info.peer_id,
            address=info.address,
            zone=info.zone,
            capacity_bytes=info.capacity_bytes,
            free_bytes=info.free_bytes,
            file_count=peer.file_count,
            active_serves=peer.active_serves,
            software_version=info.software_version,
            gateway_url=info.gateway_url,
            lease_remaining_seconds=round(peer.lease_remaining.total_seconds(), 3),
        )


class PeerList(_Shape):
    """A page of the living peers, in order of their ids."""

    peers: list[PeerInfo]
    next_page_token: NextPageToken


class Stats(_Shape):
    """Totals of the directory."""

    live_peers: int
    names: Annotated[int, Meta(description="Names in the catalogue; may count one that ended seconds ago.")]
    capacity_bytes: Annotated[int, Meta(description="Of all living peers.")]
    free_bytes: Annotated[int, Meta(description="Of all living peers.")]
    lower_bound: Annotated[
        bool, Meta(description="There may be more peers than were counted: all but `names` are at least so much.")
    ]


class Problem(Struct, kw_only=True):
    """What went wrong (RFC 9457). `code` is stable and meant for programs, `detail` for people."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    instance: str
    code: str
    retry_after_seconds: Annotated[int | UnsetType, Meta(description="The same request may succeed after so long.")] = (
        UNSET
    )
