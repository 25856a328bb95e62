"""Convert messages of the contract to checked values and back. Generated code stops here.

Every function that reads a message checks each field with the parsers of `minga_core` and raises InvalidArgumentError
(InvalidNameError for names) before anything is done with any of it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from minga_core.chunks import MAX_CONTENT_BYTES
from minga_core.errors import InvalidArgumentError, InvalidNameError, RowRefusedError
from minga_core.ids import (
    ContentId,
    parse_address,
    parse_gateway_url,
    parse_generation,
    parse_peer_id,
    parse_zone,
)
from minga_core.names import ORIGINS_PREFIX, parse_name
from minga_core.records import (
    LEASE_TOKEN_BYTES,
    MAX_INSTANT_NS,
    MAX_TICKET_BYTES,
    TAG_BYTES,
    TRANSFER_ID_BYTES,
    FetchClaim,
    Fetcher,
    FileRow,
    HoldingState,
    Lease,
    PeerInfo,
    Publication,
    RowKey,
    clamp_instant_ns,
)
from minga_directory.claims import CLAIM_TTL
from minga_directory.directory import HeartbeatOutcome, Renewal
from minga_protos.registry.v1 import registry_pb2 as pb

MAX_BATCH_ROWS = 1_000
"""Rows to put, and rows to remove, in one message (contract: registry.proto)."""
MAX_PUBLICATIONS = 1_000
"""In one request (contract: registry.proto)."""
MAX_VERSION_BYTES = 64
MAX_ROW_NAME_BYTES = 1_024
"""Of a refused row's name, as the error names it."""
_NANOS = 1_000_000_000
_MAX_DURATION_SECONDS = 315_576_000_000
"""10,000 years: the range of google.protobuf.Duration."""

_STATES = {
    pb.HOLDING_STATE_COMPLETE: HoldingState.COMPLETE,
    pb.HOLDING_STATE_PARTIAL: HoldingState.PARTIAL,
}
_ACTIONS = {
    HeartbeatOutcome.OK: pb.HEARTBEAT_ACTION_OK,
    HeartbeatOutcome.REGISTER_AGAIN: pb.HEARTBEAT_ACTION_REGISTER_AGAIN,
    HeartbeatOutcome.PUSH_TABLE: pb.HEARTBEAT_ACTION_PUSH_TABLE,
}


@dataclass(frozen=True, slots=True)
class PushHeader:
    """The peer whose table is pushed, and how its rows are meant."""

    lease: Lease
    whole: bool
    base_revision: int
    revision: int


@dataclass(frozen=True, slots=True)
class PushEnd:
    """The row counts that the sender reports."""

    put_count: int
    remove_count: int


@dataclass(frozen=True, slots=True)
class RowBatch:
    """One message's rows."""

    put: tuple[FileRow, ...]
    remove: tuple[RowKey, ...]


class _OfLease(Protocol):
    """A message that is sent under a lease."""

    @property
    def peer_id(self) -> str: ...
    @property
    def generation(self) -> int: ...
    @property
    def lease_token(self) -> bytes: ...


def claimed_peer(request: Any) -> str:
    """The peer id for which a message of any RPC is sent; empty for messages after the first of a push."""
    if isinstance(request, pb.PushTableRequest):
        return str(request.begin.peer_id)
    return str(request.peer_id)


def lease(request: _OfLease) -> Lease:
    """The lease under which a message is sent."""
    generation = parse_generation(request.generation)
    return Lease(parse_peer_id(request.peer_id), generation, lease_token(request.lease_token))


def lease_token(token: bytes) -> bytes:
    """A lease token as sent. No error shows it."""
    if len(token) not in (0, LEASE_TOKEN_BYTES):
        raise InvalidArgumentError(f"lease_token has {LEASE_TOKEN_BYTES} bytes, or none")
    return token


def peer_info(request: pb.RegisterRequest) -> PeerInfo:
    """A peer's registration."""
    version = request.software_version
    if len(version.encode()) > MAX_VERSION_BYTES or not version.isprintable():
        raise InvalidArgumentError(f"software_version has at most {MAX_VERSION_BYTES} bytes, all of them printable")
    return PeerInfo(
        peer_id=parse_peer_id(request.peer_id),
        generation=parse_generation(request.generation),
        address=parse_address(request.address),
        zone=parse_zone(request.zone),
        capacity_bytes=_count(request.capacity_bytes, "capacity_bytes"),
        free_bytes=_count(request.free_bytes, "free_bytes"),
        software_version=version,
        gateway_url=parse_gateway_url(request.gateway_url),
    )


def asked_ttl(request: pb.RegisterRequest) -> timedelta | None:
    """The lease that the peer asks for; None when it asks for none."""
    if not request.HasField("asked_ttl"):
        return None
    return timedelta(microseconds=_duration_ns(request.asked_ttl, "asked_ttl") // 1000)


def registered(
    granted: timedelta, interval: timedelta, push_limit: timedelta, publication_key_id: bytes
) -> pb.RegisterResponse:
    """The answer to Register."""
    return pb.RegisterResponse(
        granted_ttl=_duration(granted),
        heartbeat_interval=_duration(interval),
        push_limit=_duration(push_limit),
        publication_key_id=publication_key_id,
    )


def renewal(request: pb.HeartbeatRequest) -> Renewal:
    """A heartbeat."""
    return Renewal(
        lease(request),
        _count(request.table_revision, "table_revision"),
        _count(request.free_bytes, "free_bytes"),
        _count(request.active_serves, "active_serves"),
    )


def heartbeat_answer(outcome: HeartbeatOutcome, publication_key_id: bytes) -> pb.HeartbeatResponse:
    """The answer to a heartbeat."""
    return pb.HeartbeatResponse(action=_ACTIONS[outcome], publication_key_id=publication_key_id)


def publications(request: pb.PublishRequest) -> list[Publication]:
    """What is published."""
    if not 1 <= len(request.publications) <= MAX_PUBLICATIONS:
        raise InvalidArgumentError(f"{len(request.publications):,} publications: 1 to {MAX_PUBLICATIONS:,} are allowed")
    return [
        Publication(
            _key(each.name, each.content_id),
            _instant_ns(each.found_modified_time) if each.HasField("found_modified_time") else None,
            _duration_ns(each.changed_ago, "changed_ago") if each.HasField("changed_ago") else None,
            ticket=_bounded(each.ticket, "ticket", MAX_TICKET_BYTES),
            was_published=each.was_published,
        )
        for each in request.publications
    ]


def published(times_ns: Iterable[int], tags: Iterable[bytes]) -> pb.PublishResponse:
    """The answer to Publish. tags: none where there are no keys."""
    times = (Timestamp(seconds=time // _NANOS, nanos=time % _NANOS) for time in times_ns)
    return pb.PublishResponse(published_times=times, tags=tags)


def fetch_claim(request: pb.ClaimFetchRequest) -> FetchClaim:
    """Who wants to fetch what from its origin."""
    name = parse_name(request.name)
    if name != request.name or not name.startswith(ORIGINS_PREFIX):
        raise InvalidNameError(f"{request.name[:80]!r} is no name of a file of an origin")
    for field, value in (("transfer_id", request.transfer_id), ("instead_of", request.instead_of or None)):
        if value is not None and len(value) != TRANSFER_ID_BYTES:
            raise InvalidArgumentError(f"{field} has {TRANSFER_ID_BYTES} bytes")
    if not 0 < request.http_port < 65536:
        raise InvalidArgumentError(f"invalid port {request.http_port} (1 to 65535)")
    return FetchClaim(name, request.transfer_id, request.http_port, request.instead_of, request.release)


def fetcher(found: Fetcher | None) -> pb.ClaimFetchResponse:
    """The answer to ClaimFetch."""
    if found is None:
        return pb.ClaimFetchResponse()
    return pb.ClaimFetchResponse(
        peer_id=found.peer_id,
        address=found.address,
        http_port=found.http_port,
        transfer_id=found.transfer_id,
        claim_ttl=_duration(CLAIM_TTL),
    )


def _duration_ns(duration: Duration, field: str) -> int:
    if not (0 <= duration.seconds <= _MAX_DURATION_SECONDS and 0 <= duration.nanos < _NANOS):
        raise InvalidArgumentError(f"{field} is not a duration of 0 or more")
    return duration.seconds * _NANOS + duration.nanos


def _instant_ns(time: Timestamp) -> int:
    return clamp_instant_ns(time.seconds * _NANOS + time.nanos)


def push_step(request: pb.PushTableRequest) -> PushHeader | RowBatch | PushEnd:
    """One step of a push."""
    kind = request.WhichOneof("step")
    if kind == "begin":
        return _push_header(request.begin)
    if kind == "rows":
        return _row_batch(request.rows)
    if kind == "end":
        end = request.end
        return PushEnd(_count(end.put_count, "put_count"), _count(end.remove_count, "remove_count"))
    raise InvalidArgumentError("a step of a push is one of begin, rows and end")


def _push_header(begin: pb.TableBegin) -> PushHeader:
    revision = _count(begin.revision, "revision")
    base = 0 if begin.whole else _count(begin.base_revision, "base_revision")
    if not begin.whole and revision <= base:
        raise InvalidArgumentError(f"revision {revision} is not above base_revision {base}")
    return PushHeader(lease(begin), begin.whole, base, revision)


def _row_batch(rows: pb.TableRows) -> RowBatch:
    for name, found in (("put", rows.put), ("remove", rows.remove)):
        if len(found) > MAX_BATCH_ROWS:
            raise InvalidArgumentError(f"{name} has {len(found):,} rows, at most {MAX_BATCH_ROWS:,} are allowed")
    batch = RowBatch(_file_rows(rows.put), tuple(_key(row.name, row.content_id) for row in rows.remove))
    if batch.remove and not {row.key for row in batch.put}.isdisjoint(batch.remove):
        raise InvalidArgumentError("a row is both put and removed")
    return batch


def _file_rows(rows: Sequence[pb.FileRow]) -> tuple[FileRow, ...]:
    """Raises RowRefusedError for the first row that is not good."""
    done: list[FileRow] = []
    try:
        done.extend(map(_file_row, rows))
    except InvalidArgumentError as error:
        name = rows[len(done)].name.encode()[:MAX_ROW_NAME_BYTES].decode(errors="ignore")
        raise RowRefusedError(str(error), row_name=name) from error
    return tuple(done)


def _file_row(row: pb.FileRow) -> FileRow:
    # Most of what a push costs the registry: as few calls and look-ups as there can be.
    state = _STATES.get(row.state)
    if state is None:
        raise InvalidArgumentError(f"state {row.state} of {row.name[:80]!r} is neither complete nor partial")
    size_bytes = row.size_bytes
    if not 0 <= size_bytes <= MAX_CONTENT_BYTES:
        raise InvalidArgumentError(f"size_bytes of {row.name[:80]!r} is 0 to {MAX_CONTENT_BYTES:,}")
    modified, published = row.modified_time, row.published_time
    modified_ns = modified.seconds * _NANOS + modified.nanos
    published_ns = published.seconds * _NANOS + published.nanos
    if not (0 <= modified_ns <= MAX_INSTANT_NS and 0 <= published_ns <= MAX_INSTANT_NS):
        # Times are what file systems say: no reason to refuse a row, and the table with it.
        modified_ns, published_ns = clamp_instant_ns(modified_ns), clamp_instant_ns(published_ns)
    key, tag = _key(row.name, row.content_id), row.tag
    if len(tag) > TAG_BYTES:
        raise InvalidArgumentError(f"tag of {key.name[:80]!r} has at most {TAG_BYTES} bytes")
    return FileRow(key, size_bytes, modified_ns, published_ns, state, row.executable, tag)


def _key(text: str, content_id: bytes) -> RowKey:
    """The name as sent. One that is not NFC is refused, not normalized: the peer would know it by other bytes."""
    name = parse_name(text)
    if name is not text and name != text:
        raise InvalidNameError(f"{text[:80]!r} is not a file name: it is not in the normal form NFC")
    return RowKey(name, ContentId(content_id))


def _bounded(value: bytes, field: str, most: int) -> bytes:
    if len(value) > most:
        raise InvalidArgumentError(f"{field} has at most {most} bytes")
    return value


def _count(value: int, field: str) -> int:
    if value < 0:
        raise InvalidArgumentError(f"{field} is 0 or more, not {value}")
    return value


def _duration(value: timedelta) -> Duration:
    made = Duration()
    made.FromTimedelta(value)
    return made
