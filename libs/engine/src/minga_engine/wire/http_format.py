"""The bulk path's messages: the heads of HTTP/1.1 requests and answers, as text and as plain values. See docs/bulk.md.

One request, one chunk. Only what these two ends say to each other is understood; everything else is refused. No I/O.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache

from minga_core.chunks import ChunkSet
from minga_core.errors import WIRE_STATUS, BusyError, Code, InvalidArgumentError, MingaError, error_from_code
from minga_core.ids import ContentId, parse_address, parse_peer_id
from minga_engine.wire.messages import MAX_RANGES, MAX_SOURCES, SourceAddress, parse_bulk_port
from minga_runtime.tracing import TRACEPARENT

MAX_HEAD_BYTES = 16 * 1024
"""Of a request or an answer: 1,024 ranges of six digits, or 20 sources of the longest names, and room to spare."""
END_OF_HEAD = b"\r\n\r\n"
MAX_NEWS_RANGES = 1 << 20
MAX_NEWS_BYTES = 8 * 1024 * 1024
"""Of one line of news: every second of a million chunks."""
_MAX_CHUNKS = 1 << 31
_TARGET = re.compile(r"/v1/contents/(b3:[0-9a-f]{64})/chunks\?wanted=([0-9,-]+)\Z")
_HELD_TARGET = re.compile(r"/v1/contents/(b3:[0-9a-f]{64})/held\Z")
_VERSION = "HTTP/1.1"
_REASONS = {
    200: "OK",
    204: "No Content",
    400: "Bad Request",
    404: "Not Found",
    409: "Conflict",
    429: "Too Many Requests",
}


@dataclass(frozen=True, slots=True)
class BulkRequest:
    """One of some chunks of a content is wanted."""

    content_id: ContentId
    ranges: tuple[tuple[int, int], ...]
    """First chunk and one past the last."""
    caller: SourceAddress | None = None
    """Who asks, when it serves what it has."""
    traceparent: str = ""
    """The header as it came, well-formed or not."""

    def encode(self, host: str) -> bytes:
        """The request's head, which is all of it."""
        wanted = _ranges_text(self.ranges)
        lines = [f"GET /v1/contents/{self.content_id}/chunks?wanted={wanted} {_VERSION}", f"Host: {host}"]
        if self.caller is not None:
            lines.append(f"Minga-Source: {_source_text(self.caller)}")
        if self.traceparent:
            lines.append(f"Traceparent: {self.traceparent}")
        return _head(lines)


@dataclass(frozen=True, slots=True)
class BulkAnswer:
    """What a peer answers; the chunk's bytes follow the head."""

    index: int | None
    """Which chunk comes; None: the peer has none of those wanted."""
    size_bytes: int = 0
    sources: tuple[SourceAddress, ...] = field(default=())
    """Others that took chunks of this content lately."""

    def encode(self) -> bytes:
        """The answer's head."""
        if self.index is None:
            return _head([f"{_VERSION} 204 {_REASONS[204]}"])
        lines = [
            f"{_VERSION} 200 {_REASONS[200]}",
            "Content-Type: application/octet-stream",
            f"Content-Length: {self.size_bytes}",
            f"Minga-Chunk: {self.index}",
        ]
        return _head(lines + _sources_line(self.sources))

    @classmethod
    def decode(cls, head: bytes) -> "BulkAnswer | BulkHint | BulkRefusal":
        """Raises InvalidArgumentError for anything but such an answer."""
        first, headers = _lines(head)
        parts = first.split(" ", 2)
        if len(parts) < 2 or parts[0] != _VERSION or not re.fullmatch("[1-5][0-9][0-9]", parts[1]):
            raise InvalidArgumentError("the peer does not answer as HTTP/1.1 does")
        status = int(parts[1])
        if status == 103:
            return BulkHint(_sources(headers.get("minga-sources", "")))
        if status == 204:
            return cls(None)
        if status == 200:
            size_bytes = _number(headers, "content-length")
            return cls(_number(headers, "minga-chunk"), size_bytes, _sources(headers.get("minga-sources", "")))
        return BulkRefusal.of(headers)


@dataclass(frozen=True, slots=True)
class BulkHint:
    """Comes at once where the answer has to wait (HTTP's 103): others to ask meanwhile."""

    sources: tuple[SourceAddress, ...]

    def encode(self) -> bytes:
        """The head; the answer follows it."""
        return _head([f"{_VERSION} 103 Early Hints", *_sources_line(self.sources)])


@dataclass(frozen=True, slots=True)
class BulkRefusal:
    """An error as an answer. It has no body."""

    error: MingaError
    sources: tuple[SourceAddress, ...] = field(default=())

    def encode(self) -> bytes:
        """The answer's head; the connection goes on."""
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
        return _head(lines + _sources_line(self.sources))

    @classmethod
    def of(cls, headers: Mapping[str, str]) -> "BulkRefusal":
        """Raises InvalidArgumentError when the headers do not say what is wrong."""
        if _number(headers, "content-length") != 0 or "minga-code" not in headers:
            raise InvalidArgumentError("the peer refuses, and does not say why")
        code, detail = headers["minga-code"], headers.get("minga-detail", "")
        if code == Code.BUSY:
            millis = min(max(_number(headers, "minga-retry-after-millis"), 10), 60_000)
            error: MingaError = BusyError(detail, retry_after=timedelta(milliseconds=millis))
        else:
            error = error_from_code(code, detail)
        return cls(error, _sources(headers.get("minga-sources", "")))


@dataclass(frozen=True, slots=True)
class WatchRequest:
    """What a peer holds of a content is wanted, now and from now on."""

    content_id: ContentId


def encode_watch(content_id: ContentId, host: str) -> bytes:
    """A WatchRequest's head."""
    return _head([f"GET /v1/contents/{content_id}/held {_VERSION}", f"Host: {host}"])


def watch_answer() -> bytes:
    """The head before the news, which go on until the connection is closed."""
    return _head([f"{_VERSION} 200 {_REASONS[200]}", "Content-Type: text/plain", "Connection: close"])


def decode_watch_answer(head: bytes) -> BulkRefusal | None:
    """None when news follow. Raises InvalidArgumentError for anything but an answer."""
    first, headers = _lines(head)
    if first.startswith(f"{_VERSION} 200 "):
        return None
    return BulkRefusal.of(headers)


def encode_news(chunks: ChunkSet, *, complete: bool) -> bytes:
    """A line of news: chunks that are held now, `all`, or nothing yet."""
    return (("all" if complete else _ranges_text(chunks.ranges())) + "\n").encode("ascii")


def decode_news(line: bytes, count: int) -> tuple[ChunkSet, bool]:
    """The chunks of a line, and whether the peer has all `count` of the content. Raises InvalidArgumentError."""
    text = line.decode("ascii", "replace").rstrip("\n")
    if text == "all":
        return ChunkSet.full(count), True
    return ChunkSet.from_ranges(count, _ranges(text, MAX_NEWS_RANGES) if text else ()), False


def decode_request(head: bytes) -> BulkRequest | WatchRequest:
    """What is asked for. Raises InvalidArgumentError for anything else."""
    first, headers = _lines(head)
    parts = first.split(" ")
    if len(parts) != 3 or parts[0] != "GET" or parts[2] != _VERSION:
        raise InvalidArgumentError("only GET with HTTP/1.1 is served here")
    if (match := _HELD_TARGET.match(parts[1])) is not None:
        return WatchRequest(ContentId.parse(match[1]))
    if (match := _TARGET.match(parts[1])) is None:
        raise InvalidArgumentError("there is nothing here but /v1/contents/{id}/chunks?wanted={ranges} and …/held")
    sources = _sources(headers.get("minga-source", ""))
    caller = sources[0] if sources else None
    return BulkRequest(ContentId.parse(match[1]), _ranges(match[2], MAX_RANGES), caller, headers.get(TRACEPARENT, ""))


def ranges_of(chunks: ChunkSet) -> tuple[tuple[int, int], ...]:
    """A chunk set as a request's ranges, the first 1,024 of them."""
    return tuple(chunks.ranges())[:MAX_RANGES]


def _head(lines: list[str]) -> bytes:
    return "\r\n".join([*lines, "", ""]).encode("ascii")


def _lines(head: bytes) -> tuple[str, dict[str, str]]:
    """The first line, and the headers by lower-case name."""
    try:
        first, *rest = head.decode("ascii").split("\r\n")
    except UnicodeDecodeError as error:
        raise InvalidArgumentError("a head is ASCII") from error
    headers: dict[str, str] = {}
    for line in rest:
        if not line:
            continue
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip() or name.lower() in headers:
            raise InvalidArgumentError("a header is malformed, or there twice")
        headers[name.lower()] = value.strip()
    if "transfer-encoding" in headers:
        raise InvalidArgumentError("Transfer-Encoding is not understood here")
    return first, headers


def _ranges_text(ranges: Iterable[tuple[int, int]]) -> str:
    return ",".join(str(start) if end == start + 1 else f"{start}-{end - 1}" for start, end in ranges)


def _ranges(text: str, most: int) -> tuple[tuple[int, int], ...]:
    parts = text.split(",")
    if len(parts) > most:
        raise InvalidArgumentError(f"{most} ranges at most are understood, not {len(parts)}")
    ranges = []
    for part in parts:
        match = re.fullmatch("([0-9]{1,10})(?:-([0-9]{1,10}))?", part)
        if match is None:
            raise InvalidArgumentError(f"{part[:40]!r} is not a range of chunks")
        start, last = int(match[1]), int(match[2] or match[1])
        if not start <= last < _MAX_CHUNKS:
            raise InvalidArgumentError(f"{part!r} is not a range of chunks")
        ranges.append((start, last + 1))
    return tuple(ranges)


def _number(headers: Mapping[str, str], name: str) -> int:
    text = headers.get(name, "")
    if not re.fullmatch("[0-9]{1,10}", text):
        raise InvalidArgumentError(f"{name} is missing or no number")
    return int(text)


def _source_text(source: SourceAddress) -> str:
    """`peer@host:port`, and `/port` of its bulk path."""
    return f"{source.peer_id}@{source.address}" + (f"/{source.bulk_port}" if source.bulk_port else "")


def _sources_line(sources: Iterable[SourceAddress]) -> list[str]:
    text = ",".join(_source_text(source) for source in sources)
    return [f"Minga-Sources: {text}"] if text else []


@lru_cache(256)
def _sources(text: str) -> tuple[SourceAddress, ...]:
    """Sources from outside, at most 20; those that are malformed are left out. Answers in a row name the same ones."""
    found: list[SourceAddress] = []
    for part in text.split(",")[:MAX_SOURCES] if text else ():
        peer_id, _, place = part.rpartition("@")
        address, _, port = place.partition("/")
        try:
            bulk_port = parse_bulk_port(int(port)) if re.fullmatch("[0-9]{1,5}", port) else 0
            found.append(
                SourceAddress(parse_peer_id(peer_id), parse_address(address), complete=False, bulk_port=bulk_port)
            )
        except InvalidArgumentError:
            continue
    return tuple(found)
