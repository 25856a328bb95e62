"""Checked fields of JSON from others. Each raises ValueError or TypeError for anything else."""

import re
from datetime import datetime
from typing import Any

MAX_TEXT_LENGTH = 4096
# RFC 3339; fromisoformat would drop what is below a microsecond.
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)", re.ASCII)


def count(value: Any) -> int:
    """A count or size: 0 to 2^63 - 1."""
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise ValueError(f"{str(value)[:40]!r} is not a count")
    return value


def flag(value: Any) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise TypeError(f"{str(value)[:40]!r} is neither true nor false")
    return value


def text(value: Any) -> str:
    """A line of text that is safe to show."""
    if not isinstance(value, str) or len(value) > MAX_TEXT_LENGTH or not value.isprintable():
        raise ValueError(f"{str(value)[:40]!r} is not a line of text")
    return value


def line(value: Any) -> str:
    """Text for people, made safe to show: names in it may have characters that terminals do not show as they are."""
    if not isinstance(value, str):
        raise TypeError("there is no text")
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in value[:MAX_TEXT_LENGTH])


def nanos(text: Any) -> int:
    """Nanoseconds since 1970 of an RFC 3339 time."""
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError(f"{text[:40]!r} is not a time")
    whole = datetime.fromisoformat(match[1] + match[3])
    return round(whole.timestamp()) * 10**9 + int((match[2] or "0").ljust(9, "0"))
