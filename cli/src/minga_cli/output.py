"""How results look: aligned columns and plain lines, bold headings on a terminal, JSON when asked.

Text of others is made safe here: nothing from a remote reaches the terminal with control characters in it.
"""

import json
import os
import sys
import unicodedata
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, TextIO, TypeVar

from minga.errors import MingaError

T = TypeVar("T")

MAX_CACHED_MINUTES = 10_000
"""Times of a listing that are formatted once: many files are published in one minute."""
_JOINERS = "\u200c\u200d"
"""Format characters that scripts and emoji need; the others may reorder what is around them."""


def on_terminal(stream: TextIO) -> bool:
    """Whether people watch the stream."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def safe(text: str) -> str:
    """`text` on one line, without what moves or turns other text: control characters and bidi overrides.

    Spaces of any width and joiners are shown as they are: paths have them.
    """
    return text if text.isprintable() else "".join(char if _harmless(char) else "\ufffd" for char in text)


def _harmless(char: str) -> bool:
    return char.isprintable() or char in _JOINERS or unicodedata.category(char) == "Zs"


_quiet = False


def be_quiet(*, wanted: bool) -> None:
    """Whether this process prints errors alone from now on: no results, no progress."""
    global _quiet
    _quiet = wanted


def is_quiet() -> bool:
    """What `be_quiet` has set."""
    return _quiet


def say(line: str) -> None:
    """Print a line of result, unless quiet."""
    if not _quiet:
        sys.stdout.write(line + "\n")


def note(line: str) -> None:
    """Print a line about the work, on standard error."""
    sys.stderr.write(line + "\n")


def print_error(error: MingaError) -> None:
    """Print what is wrong, and what to do, on standard error: one line, or one for each wrong setting."""
    hint = f" ({error.hint})" if error.hint else ""
    for line in f"{error}{hint}".splitlines():
        note(f"minga: {safe(line)}")


def heading(text: str) -> str:
    """`text` as a heading: bold on a terminal, unless NO_COLOR (https://no-color.org) is set."""
    bold = on_terminal(sys.stdout) and not os.environ.get("NO_COLOR")
    return f"\x1b[1m{text}\x1b[0m" if bold else text


def print_table(titles: Sequence[str], rows: Sequence[Sequence[str]], *, right: Iterable[str] = ()) -> None:
    """Print rows in aligned columns. right: titles of the columns that are set to the right."""
    table = [list(titles), *([safe(cell) for cell in row] for row in rows)]
    widths = [max(len(cell) for cell in cells) for cells in zip(*table, strict=True)]
    aligned = [">" if title in right else "<" for title in titles]
    for number, row in enumerate(table):
        cells = zip(row, aligned, widths, strict=True)
        line = "  ".join(f"{cell:{side}{width}}" for cell, side, width in cells).rstrip()
        say(line if number else heading(line))


def print_json(value: Any) -> None:
    """Print one JSON document."""
    say(json.dumps(value, indent=2, ensure_ascii=False))


async def print_json_list(key: str, items: AsyncIterator[T], shape: Callable[[T], dict[str, Any]]) -> None:
    """Print `{key: [...]}`, an item on a line as it comes: a list of any length takes no memory."""
    opening = f"{{{json.dumps(key)}: ["
    before = opening + "\n  "
    async for item in items:
        sys.stdout.write(before + json.dumps(shape(item), ensure_ascii=False))
        before = ",\n  "
    # Nothing is printed before the first answer: an error then leaves no half of a document.
    say("\n]}" if before != opening + "\n  " else opening + "\n]}")


def rfc3339(nanos: int) -> str:
    """Nanoseconds since 1970 as JSON has them, exact to the microsecond."""
    moment = datetime.fromtimestamp(nanos // 10**9, UTC).replace(microsecond=nanos % 10**9 // 1000)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def local_time(nanos: int) -> str:
    """Nanoseconds since 1970 as people read them, in the machine's time zone."""
    return _local_minute(nanos // (60 * 10**9))


@lru_cache(MAX_CACHED_MINUTES)
def _local_minute(minutes: int) -> str:
    return datetime.fromtimestamp(minutes * 60, UTC).astimezone().strftime("%Y-%m-%d %H:%M")


def counted(count: int, one: str) -> str:
    """`1 file`, `2 files`."""
    return f"{count:,} {one if count == 1 else one + 's'}"


def enumerated(words: Iterable[str]) -> str:
    """`a, b, c`, or a dash for nothing."""
    return ", ".join(words) or "-"
