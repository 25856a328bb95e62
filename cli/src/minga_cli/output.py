"""How results look: tables and colour on a terminal, plain lines for pipes, JSON when asked.

What comes from others is made safe here: no text of a remote reaches the terminal with control characters in it.
"""

import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TextIO, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table."""

    title: str
    right: bool = False
    """Numbers are set to the right."""


def on_terminal(stream: TextIO) -> bool:
    """Whether people watch the stream."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def coloured(stream: TextIO) -> bool:
    """Whether colour may be used: on a terminal, unless NO_COLOR (https://no-color.org) is set."""
    return on_terminal(stream) and not os.environ.get("NO_COLOR")


def safe(text: str) -> str:
    """`text` on one line, without terminal escapes."""
    return text if text.isprintable() else "".join(char if char.isprintable() else "\ufffd" for char in text)


def say(line: str) -> None:
    """A line of result."""
    sys.stdout.write(line + "\n")


def note(line: str) -> None:
    """A line about the work, on standard error."""
    sys.stderr.write(line + "\n")


def heading(text: str) -> str:
    """`text` as a heading, bold where colour may be used."""
    return f"\x1b[1m{text}\x1b[0m" if coloured(sys.stdout) else text


def print_table(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    """Prints rows: a table as wide as the terminal, or lines with aligned columns for a pipe."""
    shown = [[safe(cell) for cell in row] for row in rows]
    if on_terminal(sys.stdout):
        _print_rich(columns, shown)
        return
    widths = [max(len(cell) for cell in cells) for cells in zip([c.title for c in columns], *shown, strict=True)]
    for row in [[column.title for column in columns], *shown]:
        cells = zip(columns, widths, row, strict=True)
        say("  ".join(f"{cell:>{w}}" if column.right else f"{cell:<{w}}" for column, w, cell in cells).rstrip())


def _print_rich(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in columns:
        table.add_column(column.title, justify="right" if column.right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)


def print_json(value: Any) -> None:
    """Prints one JSON document."""
    say(json.dumps(value, indent=2, ensure_ascii=False))


async def print_json_list(key: str, items: AsyncIterator[T], shape: Callable[[T], dict[str, Any]]) -> None:
    """Prints `{key: [...]}`, an item on a line as it comes: a list of any length takes no memory."""
    sys.stdout.write(f"{{{json.dumps(key)}: [")
    before = "\n  "
    async for item in items:
        sys.stdout.write(before + json.dumps(shape(item), ensure_ascii=False))
        before = ",\n  "
    say("\n]}")


def rfc3339(nanos: int) -> str:
    """Nanoseconds since 1970 as JSON has them, exact to the microsecond."""
    moment = datetime.fromtimestamp(nanos // 10**9, UTC).replace(microsecond=nanos % 10**9 // 1000)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def local_time(nanos: int) -> str:
    """Nanoseconds since 1970 as people read them, in the machine's time zone."""
    return datetime.fromtimestamp(nanos // 10**9, UTC).astimezone().strftime("%Y-%m-%d %H:%M")


def counted(count: int, one: str, many: str = "") -> str:
    """`1 file`, `2 files`."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def enumerated(words: Iterable[str]) -> str:
    """`a, b, c`, or a dash for nothing."""
    return ", ".join(words) or "-"
