"""Checked fields of JSON from others. Each raises ValueError or TypeError for anything else."""

import re
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

MAX_TEXT_LENGTH = 4096
MAX_ITEMS = 1000
"""Of a list: a page at most. Each costs the event loop some microseconds."""
MAX_SECONDS = 1e9
MAX_NANOS = (1 << 63) - 1
"""What an index keeps: a time in 2262."""
MAX_CACHED_SECONDS = 10_000
"""Times that are parsed once, without their fractions: many files are published in one second."""
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


def items(value: Any, limit: int = MAX_ITEMS) -> list[Any]:
    """A list of so many items at most."""
    if not isinstance(value, list) or len(value) > limit:
        raise ValueError(f"a list of {limit:,} items at most was expected")
    return value


def seconds(value: Any) -> timedelta:
    """A duration: 0 to MAX_SECONDS, fractions of a second included."""
    if type(value) not in (int, float) or not 0 <= value <= MAX_SECONDS:
        raise ValueError(f"{str(value)[:40]!r} is not a number of seconds")
    return timedelta(seconds=value)


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
    """Nanoseconds since 1970 of an RFC 3339 time; for one before 1970, or after 2262, the next that can be kept."""
    # As the locator writes it: ten thousands of them come with a folder.
    if (
        len(text) == 30
        and text[19] == "."
        and text[29] == "Z"
        and (digits := text[20:29]).isdecimal()
        and text.isascii()
    ):
        return min(max(0, _seconds_of(text[:19] + "Z") * 10**9 + int(digits)), MAX_NANOS)
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError(f"{text[:40]!r} is not a time")
    exact = _seconds_of(match[1] + match[3]) * 10**9 + int((match[2] or "0").ljust(9, "0"))
    return min(max(0, exact), MAX_NANOS)


@lru_cache(MAX_CACHED_SECONDS)
def _seconds_of(text: str) -> int:
    """Of a time without a fraction. Raises ValueError."""
    if _TIME.fullmatch(text) is None:
        raise ValueError(f"{text[:40]!r} is not a time")
    return round(datetime.fromisoformat(text).timestamp())
