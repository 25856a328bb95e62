"""Heads of the HTTP/1.1 requests and responses between peers (docs/http.md), as bytes and as plain values. No I/O.

One request brings one chunk, the availability of a content, or many small contents. Only what these two ends need is
understood; everything else is refused.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache

from minga_core.chunks import ChunkSet
from minga_core.errors import WIRE_STATUS, BusyError, Code, InvalidArgumentError, MingaError, error_from_code
from minga_core.ids import DIGEST_BYTES, ContentId, parse_address, parse_peer_id
from minga_engine.wire.messages import MAX_SMALL_FILES, MAX_SOURCES, SourceAddress, parse_http_port
from minga_runtime.tracing import TRACEPARENT

MAX_HEAD_BYTES = 16 * 1024
"""Largest head of a request or response: 1,024 ranges of six digits, or 20 sources with the longest names, fit in."""
END_OF_HEAD = b"\r\n\r\n"
MAX_RANGES = 1024
"""Ranges of chunks in a request."""
MAX_AVAILABILITY_RANGES = 1 << 20
MAX_AVAILABILITY_BYTES = 8 * 1024 * 1024
"""Longest line of an availability update: every second one of a million chunks."""
_MAX_CHUNKS = 1 << 31
_CHUNKS_TARGET = re.compile(r"/v1/contents/(b3:[0-9a-f]{64})/chunks\?wanted=([0-9,-]+)\Z")
_WRONG_TARGET = re.compile(r"/v1/contents/(b3:[0-9a-f]{64})/chunks/([0-9]{1,10})/wrong\Z")
_FILES_TARGET = "/v1/files"
_HELD_TARGET = re.compile(r"/v1/contents/(b3:[0-9a-f]{64})/held\Z")
_RANGES = re.compile("[0-9]{1,10}(?:-[0-9]{1,10})?(?:,[0-9]{1,10}(?:-[0-9]{1,10})?)*")
_VERSION = "HTTP/1.1"
_OK = f"{_VERSION} 200 OK"
_REASONS = {400: "Bad Request", 404: "Not Found", 409: "Conflict", 429: "Too Many Requests"}


@dataclass(frozen=True, slots=True)
class ChunkRequest:
    """Asks for any one of some chunks of a content."""

    content_id: ContentId
    ranges: tuple[tuple[int, int], ...]
    """First chunk and one past the last, ascending."""
    requester: SourceAddress | None = None
    """The peer that asks; None for a client that serves nothing."""
    traceparent: str = ""
    """The header as it came, well-formed or not."""

    def encode(self, host: str) -> bytes:
        """The request, which is nothing but a head."""
        wanted = _format_ranges(self.ranges)
        lines = [f"GET /v1/contents/{self.content_id}/chunks?wanted={wanted} {_VERSION}", f"Host: {host}"]
        if self.requester is not None:
            lines.append(f"Minga-Source: {_format_source(self.requester)}")
        if self.traceparent:
            lines.append(f"Traceparent: {self.traceparent}")
        return _head(lines)


@dataclass(frozen=True, slots=True)
class AvailabilityRequest:
    """Asks for the chunks of a content that a peer holds, now and as they come."""

    content_id: ContentId

    def encode(self, host: str) -> bytes:
        """The request, which is nothing but a head."""
        return _head([f"GET /v1/contents/{self.content_id}/held {_VERSION}", f"Host: {host}"])


@dataclass(frozen=True, slots=True)
class WrongChunkReport:
    """Reports a chunk that failed its digest to the peer that sent it, which looks at it and believes nothing."""

    content_id: ContentId
    index: int

    def encode(self, host: str) -> bytes:
        """The request, which is nothing but a head."""
        target = f"/v1/contents/{self.content_id}/chunks/{self.index}/wrong"
        return _head([f"POST {target} {_VERSION}", f"Host: {host}", "Content-Length: 0"])


@dataclass(frozen=True, slots=True)
class FilesRequest:
    """Asks for small contents. Their ids follow the head, of DIGEST_BYTES each; groups of them answer it (`groups`)."""

    count: int
    """1 to MAX_SMALL_FILES."""

    def encode(self, host: str) -> bytes:
        """The head."""
        length = self.count * DIGEST_BYTES
        return _head([f"POST {_FILES_TARGET} {_VERSION}", f"Host: {host}", f"Content-Length: {length}"])


@dataclass(frozen=True, slots=True)
class ChunkResponse:
    """Announces the chunk whose bytes follow the head."""

    index: int | None
    """The chunk that the peer chose; None: it has none of those wanted, and no bytes follow."""
    size_bytes: int = 0
    sources: tuple[SourceAddress, ...] = field(default=())
    """Other peers that fetched chunks of this content lately (peer exchange)."""

    def encode(self) -> bytes:
        """The head."""
        if self.index is None:
            return _head([f"{_VERSION} 204 No Content"])
        lines = [
            _OK,
            "Content-Type: application/octet-stream",
            f"Content-Length: {self.size_bytes}",
            f"Minga-Chunk: {self.index}",
        ]
        return _head(lines + _sources_header(self.sources))


@dataclass(frozen=True, slots=True)
class EarlyHints:
    """Peer exchange ahead of a response that has to wait (HTTP's 103): other peers to ask meanwhile."""

    sources: tuple[SourceAddress, ...]

    def encode(self) -> bytes:
        """The head; the response follows it."""
        return _head([f"{_VERSION} 103 Early Hints", *_sources_header(self.sources)])


@dataclass(frozen=True, slots=True)
class ErrorResponse:
    """An error; no body follows, and the connection can be used again."""

    error: MingaError
    sources: tuple[SourceAddress, ...] = field(default=())

    def encode(self) -> bytes:
        """The head."""
        status = WIRE_STATUS[self.error.code].http
        sentence = " ".join(str(self.error).split())[:500].encode("ascii", "replace").decode()
        lines = [
            f"{_VERSION} {status} {_REASONS.get(status, 'Error')}",
            "Content-Length: 0",
            f"Minga-Code: {self.error.code}",
            f"Minga-Detail: {sentence}",
        ]
        if isinstance(self.error, BusyError):
            lines.append(f"Minga-Retry-After-Millis: {int(self.error.retry_after / timedelta(milliseconds=1))}")
        return _head(lines + _sources_header(self.sources))


Request = ChunkRequest | AvailabilityRequest | WrongChunkReport | FilesRequest


def decode_request(head: bytes) -> Request:
    """The request of a head. Raises InvalidArgumentError for anything that is not served here."""
    first, headers = _parse_head(head)
    parts = first.split(" ")
    if len(parts) != 3 or parts[0] not in ("GET", "POST") or parts[2] != _VERSION:
        raise InvalidArgumentError("only GET and POST with HTTP/1.1 are served here")
    if parts[0] == "POST":
        files = parts[1] == _FILES_TARGET
        return _decode_files_request(headers) if files else _decode_report(parts[1], headers)
    if (match := _HELD_TARGET.match(parts[1])) is not None:
        return AvailabilityRequest(ContentId.parse(match[1]))
    if (match := _CHUNKS_TARGET.match(parts[1])) is None:
        raise InvalidArgumentError("nothing is read here but /v1/contents/{id}/chunks?wanted={ranges} and …/held")
    sources = _parse_sources(headers.get("minga-source", ""))
    requester = sources[0] if sources else None
    traceparent = headers.get(TRACEPARENT, "")
    return ChunkRequest(ContentId.parse(match[1]), _parse_ranges(match[2], MAX_RANGES), requester, traceparent)


def _decode_files_request(headers: Mapping[str, str]) -> FilesRequest:
    count, rest = divmod(_number(headers, "content-length"), DIGEST_BYTES)
    if rest or not 0 < count <= MAX_SMALL_FILES:
        raise InvalidArgumentError(f"the body is 1 to {MAX_SMALL_FILES:,} content ids of {DIGEST_BYTES} bytes")
    return FilesRequest(count)


def _decode_report(target: str, headers: Mapping[str, str]) -> WrongChunkReport:
    match = _WRONG_TARGET.match(target)
    if match is None or headers.get("content-length", "0") != "0":
        raise InvalidArgumentError(
            "nothing is posted here but /v1/files, and /v1/contents/{id}/chunks/{index}/wrong without a body"
        )
    return WrongChunkReport(ContentId.parse(match[1]), int(match[2]))


def decode_response(head: bytes) -> ChunkResponse | EarlyHints | ErrorResponse:
    """The response of a head to a ChunkRequest, or to a WrongChunkReport, which has no chunk. Raises
    InvalidArgumentError for anything else."""
    status, headers = _parse_response(head)
    sources = _parse_sources(headers.get("minga-sources", ""))
    if status == 103:
        return EarlyHints(sources)
    if status == 204:
        return ChunkResponse(None)
    if status == 200:
        return ChunkResponse(_number(headers, "minga-chunk"), _number(headers, "content-length"), sources)
    return ErrorResponse(_error_of(headers), sources)


def stream_head(content_type: str) -> bytes:
    """The head before what goes on until the connection is closed: availability updates, or small contents."""
    return _head([_OK, f"Content-Type: {content_type}", "Connection: close"])


def decode_stream_head(head: bytes) -> MingaError | None:
    """None when a stream follows, else the peer's error. Raises InvalidArgumentError for anything else."""
    status, headers = _parse_response(head)
    return None if status == 200 else _error_of(headers)


def encode_availability(chunks: ChunkSet, *, complete: bool) -> bytes:
    """A line of an availability update: the chunks that are held now and were not before, or `all`."""
    return (("all" if complete else _format_ranges(chunks.ranges())) + "\n").encode("ascii")


def decode_availability(line: bytes, count: int) -> tuple[ChunkSet, bool]:
    """The chunks of a line, and whether the peer has all `count` of the content. Raises InvalidArgumentError."""
    text = line.decode("ascii", "replace").rstrip("\n")
    if text == "all":
        return ChunkSet.full(count), True
    return ChunkSet.from_ranges(count, _parse_ranges(text, MAX_AVAILABILITY_RANGES) if text else ()), False


def _head(lines: list[str]) -> bytes:
    return "\r\n".join([*lines, "", ""]).encode("ascii")


def _parse_head(head: bytes) -> tuple[str, dict[str, str]]:
    """The first line, and the headers by lower-case name."""
    try:
        first, *rest = head.decode("ascii").split("\r\n")
    except UnicodeDecodeError as error:
        raise InvalidArgumentError("a head is ASCII") from error
    headers: dict[str, str] = {}
    for line in filter(None, rest):
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip() or name.lower() in headers:
            raise InvalidArgumentError("a header is malformed, or there twice")
        headers[name.lower()] = value.strip()
    if "transfer-encoding" in headers:
        raise InvalidArgumentError("Transfer-Encoding is not understood here")
    return first, headers


def _parse_response(head: bytes) -> tuple[int, dict[str, str]]:
    first, headers = _parse_head(head)
    match = re.match(rf"{re.escape(_VERSION)} ([1-5][0-9][0-9])(?: |\Z)", first)
    if match is None:
        raise InvalidArgumentError("the peer does not answer as HTTP/1.1 does")
    return int(match[1]), headers


def _error_of(headers: Mapping[str, str]) -> MingaError:
    if _number(headers, "content-length") != 0 or "minga-code" not in headers:
        raise InvalidArgumentError("the peer refuses, and does not say why")
    code, detail = headers["minga-code"], headers.get("minga-detail", "")
    if code != Code.BUSY:
        return error_from_code(code, detail)
    millis = min(max(_number(headers, "minga-retry-after-millis"), 10), 60_000)
    return BusyError(detail, retry_after=timedelta(milliseconds=millis))


def _number(headers: Mapping[str, str], name: str) -> int:
    text = headers.get(name, "")
    if not re.fullmatch("[0-9]{1,10}", text):
        raise InvalidArgumentError(f"{name} is missing or no number")
    return int(text)


def _format_ranges(ranges: Iterable[tuple[int, int]]) -> str:
    return ",".join(str(start) if end == start + 1 else f"{start}-{end - 1}" for start, end in ranges)


def _parse_ranges(text: str, most: int) -> tuple[tuple[int, int], ...]:
    if not _RANGES.fullmatch(text):
        raise InvalidArgumentError(f"{text[:40]!r} are not ranges of chunks")
    parts = text.split(",")
    if len(parts) > most:
        raise InvalidArgumentError(f"too many ranges of chunks: {len(parts)} (1 to {most})")
    ranges = []
    for part in parts:
        first, _, end = part.partition("-")
        start, last = int(first), int(end or first)
        if not start <= last < _MAX_CHUNKS:
            raise InvalidArgumentError(f"{part[:40]!r} is not a range of chunks")
        ranges.append((start, last + 1))
    return tuple(ranges)


def _format_source(source: SourceAddress) -> str:
    """`peer@host:port`, and `/port` of its HTTP server."""
    return f"{source.peer_id}@{source.address}" + (f"/{source.http_port}" if source.http_port else "")


def _sources_header(sources: Iterable[SourceAddress]) -> list[str]:
    text = ",".join(_format_source(source) for source in sources)
    return [f"Minga-Sources: {text}"] if text else []


@lru_cache(256)
def _parse_sources(text: str) -> tuple[SourceAddress, ...]:
    """Received sources, at most 20; malformed ones are left out. Cached: responses in a row name the same ones."""
    found: list[SourceAddress] = []
    for part in text.split(",")[:MAX_SOURCES] if text else ():
        peer_id, _, place = part.rpartition("@")
        address, _, port = place.partition("/")
        http_port = int(port) if re.fullmatch("[0-9]{1,5}", port) else 0
        try:
            parsed = parse_peer_id(peer_id), parse_address(address)
            found.append(SourceAddress(*parsed, complete=False, http_port=parse_http_port(http_port)))
        except InvalidArgumentError:
            continue
    return tuple(found)
