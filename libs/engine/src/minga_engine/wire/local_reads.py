"""Messages between a daemon and a program of its machine that reads a file, over a Unix socket.

Each is a line of JSON. A connection is one reader of one content: it begins with `OpenRequest`, answered by `Opened`,
then come `ReadRequest`s, each answered by a `FoundBytes`, one at a time. The descriptor of the file, for reading, goes
with the first answer of those bytes that are in it. Any answer may be an error instead.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from minga_core.errors import InvalidArgumentError, MingaError, error_from_code
from minga_core.ids import ContentId
from minga_core.names import Name, parse_name
from minga_engine.wire.json_fields import count, line, seconds, text

MAX_LINE_BYTES = 16 * 1024
"""Above the longest name in its longest spelling, and any error."""


@dataclass(frozen=True, slots=True)
class OpenRequest:
    """Open a file: a name, a version of a name, or a content."""

    name: Name | None
    content_id: ContentId | None = None
    wait: timedelta | None = None
    """How long a read waits for a source, or less; None: as the daemon does."""

    def encode(self) -> bytes:
        """As a line."""
        content = None if self.content_id is None else str(self.content_id)
        wait = None if self.wait is None else self.wait.total_seconds()
        return _line({"name": self.name, "content": content, "wait": wait})

    @classmethod
    def decode(cls, data: bytes) -> "OpenRequest":
        """Raises InvalidArgumentError, InvalidNameError."""
        fields = _fields(data)
        name, content, wait = (fields.get(key) for key in ("name", "content", "wait"))
        try:
            return cls(
                None if name is None else parse_name(text(name)),
                None if content is None else ContentId.parse(text(content)),
                None if wait is None else seconds(wait),
            )
        except (ValueError, TypeError) as error:
            raise _senseless(error) from error


@dataclass(frozen=True, slots=True)
class Opened:
    """What was opened."""

    content_id: ContentId
    size_bytes: int

    def encode(self) -> bytes:
        """As a line."""
        return _line({"content": str(self.content_id), "size": self.size_bytes})

    @classmethod
    def decode(cls, data: bytes) -> "Opened":
        """Raises InvalidArgumentError, and the error that it is instead."""
        fields = _answer(data)
        try:
            return cls(ContentId.parse(text(fields["content"])), count(fields["size"]))
        except (ValueError, TypeError, KeyError) as error:
            raise _senseless(error) from error


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """Bytes that are wanted."""

    offset: int
    length: int

    def encode(self) -> bytes:
        """As a line."""
        return _line({"offset": self.offset, "length": self.length})

    @classmethod
    def decode(cls, data: bytes) -> "ReadRequest":
        """Raises InvalidArgumentError."""
        fields = _fields(data)
        try:
            return cls(count(fields["offset"]), count(fields["length"]))
        except (ValueError, TypeError, KeyError) as error:
            raise _senseless(error) from error


@dataclass(frozen=True, slots=True)
class FoundBytes:
    """Bytes that are in the file of the last descriptor, the one of this answer included: the first of those wanted,
    and perhaps others around them."""

    start: int
    stop: int
    fingerprint: bytes = b""
    """That of the file; empty for a part. See `Place`."""

    def encode(self) -> bytes:
        """As a line."""
        return _line({"start": self.start, "stop": self.stop, "fingerprint": self.fingerprint.hex()})

    @classmethod
    def decode(cls, data: bytes) -> "FoundBytes":
        """Raises InvalidArgumentError, and the error that it is instead."""
        fields = _answer(data)
        try:
            return cls(count(fields["start"]), count(fields["stop"]), bytes.fromhex(text(fields["fingerprint"])))
        except (ValueError, TypeError, KeyError) as error:
            raise _senseless(error) from error


def encode_error(error: MingaError) -> bytes:
    """An error as an answer."""
    return _line({"error": error.code.value, "detail": str(error)[: MAX_LINE_BYTES // 8]})


def _answer(data: bytes) -> dict[str, Any]:
    fields = _fields(data)
    if "error" in fields:
        raise error_from_code(str(fields["error"]), line(str(fields.get("detail"))))
    return fields


def _line(fields: Mapping[str, object]) -> bytes:
    return json.dumps(fields, separators=(",", ":")).encode() + b"\n"


def _fields(data: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _senseless(error) from error
    if not isinstance(fields, dict):
        raise _senseless(fields)
    return fields


def _senseless(why: object) -> InvalidArgumentError:
    return InvalidArgumentError(f"a message about a local read makes no sense: {str(why)[:100]!r}")
