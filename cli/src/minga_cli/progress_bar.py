"""Progress of transfers: one bar for all of a command's files, its rate and the time left.

On a terminal only, on standard error. Elsewhere there is one line when the wait for sources begins, and no more.
"""

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING

from minga.units import format_bytes, format_rate, format_seconds
from minga_cli.output import counted, is_quiet, note, on_terminal, safe

if TYPE_CHECKING:
    from rich.progress import Progress, Task

    from minga import Progress as DownloadProgress

RATE_WINDOW_SECONDS = 5.0
REFRESH_PER_SECOND = 8
MIN_TITLE_CHARACTERS = 12


@dataclass(slots=True)
class _Amounts:
    size_bytes: int = 0
    held_bytes: int = 0
    resumed_bytes: int = 0
    """Of those held, held before this command."""


class TransferBar:
    """A context manager that shows how far the items are. Resumed bytes count as held, not as rate.

    shown: whether there is a bar on a terminal.
    """

    def __init__(self, title: str, count: int, total_bytes: int, *, shown: bool = True) -> None:
        self._title = title
        self._count = count
        self._items: dict[str, _Amounts] = {}
        self._all = _Amounts()
        self._listed_bytes = total_bytes
        self._ended = 0
        self._waiting = ""
        self._sources: set[str] = set()
        self._rich: Progress | None = None
        self._shown = shown

    def __enter__(self) -> "TransferBar":
        if self._shown and on_terminal(sys.stderr) and not is_quiet():
            self._rich = _make_rich()
            self._rich.start()
            self._task = self._rich.add_task(safe(self._title), total=None, files="", doing="", source_count=0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._rich is not None:
            self._rich.stop()

    def update(
        self,
        name: str,
        size_bytes: int,
        held_bytes: int,
        *,
        resumed_bytes: int = 0,
        waiting: str = "",
        doing: str = "",
        sources: Iterable[str] = (),
    ) -> None:
        """Show how far one item is.

        sources: who has sent any of it. waiting: why nothing comes; doing: what goes on instead of a transfer; empty
        when bytes flow.
        """
        item, whole = self._items.setdefault(name, _Amounts()), self._all
        resumed_more = resumed_bytes > item.resumed_bytes
        whole.size_bytes += size_bytes - item.size_bytes
        whole.held_bytes += held_bytes - item.held_bytes
        whole.resumed_bytes += resumed_bytes - item.resumed_bytes
        self._items[name] = _Amounts(size_bytes, held_bytes, resumed_bytes)
        if waiting and not self._waiting and self._rich is None and not is_quiet():
            note(f"minga: {safe(name)}: {safe(waiting)}")
        self._waiting = waiting
        if self._rich is not None:
            if resumed_more:
                self._rich.reset(self._task, completed=whole.held_bytes)
            # What was listed, or what the items turned out to be when that is more.
            total = max(self._listed_bytes, whole.size_bytes) or None
            doing = safe(waiting or doing)
            self._sources.update(sources)
            self._rich.update(
                self._task, total=total, completed=whole.held_bytes, doing=doing, source_count=len(self._sources)
            )

    def expect(self, size_bytes: int) -> None:
        """Count one item more, of that size as it is listed."""
        self._count += 1
        self._listed_bytes += size_bytes

    def held_bytes(self, name: str) -> int:
        """How far one item was shown to be."""
        return self._items[name].held_bytes if name in self._items else 0

    def ended(self) -> None:
        """Count one item as done, or given up."""
        self._ended += 1
        if self._rich is not None and self._count > 1:
            self._rich.update(self._task, files=f"{self._ended} of {self._count} files")


def show_fetched(bar: TransferBar, name: str, progress: "DownloadProgress", listed_bytes: int = 0) -> None:
    """Show how far the download of one file is. listed_bytes: its size as listed, until the download knows it."""
    bar.update(
        name,
        progress.size_bytes or listed_bytes,
        progress.held_bytes,
        resumed_bytes=progress.resumed_bytes,
        waiting=progress.message,
        sources=(peer_id for peer_id, count in progress.received_by_source.items() if count),
    )


def figures(task: "Task") -> str:
    """What stands right of the bar: `12 of 40 files  1.5 GiB of 3 GiB  120 MiB/s from 5 peers  13 s left`."""
    words = [task.fields["files"]]
    if task.total:
        words.append(f"{format_bytes(task.completed)} of {format_bytes(task.total)}")
    if task.fields["doing"]:
        words.append(task.fields["doing"])
    elif task.speed:
        count = task.fields["source_count"]
        words.append(format_rate(task.speed) + (f" from {counted(count, 'peer')}" if count else ""))
        words.append(f"{format_seconds(task.time_remaining)} left" if task.time_remaining else "")
    return "  ".join(filter(None, words))


def _make_rich() -> "Progress":
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn
    from rich.table import Column
    from rich.text import Text

    class Figures(ProgressColumn):
        def render(self, task: "Task") -> Text:
            return Text(figures(task))

    console = Console(stderr=True)
    # The bar gives way, then a long title, and not the end of the line.
    title = Column(no_wrap=True, max_width=max(MIN_TITLE_CHARACTERS, console.width // 4))
    return Progress(
        TextColumn("{task.description}", markup=False, table_column=title),
        BarColumn(bar_width=None),
        Figures(Column(no_wrap=True)),
        console=console,
        refresh_per_second=REFRESH_PER_SECOND,
        speed_estimate_period=RATE_WINDOW_SECONDS,
        transient=True,
        expand=True,
    )
