"""Progress of transfers: one bar for all of a command's files, its rate and the time left.

On a terminal only, on standard error. Elsewhere there is one line when the wait for sources begins, and no more.
"""

import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING

from minga_cli.output import note, on_terminal, safe
from minga_core.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

RATE_WINDOW_SECONDS = 5.0
MARK_SECONDS = 0.1
"""Marks are no closer than this, however often progress is told."""
REFRESH_PER_SECOND = 8


class RateMeter:
    """Bytes a second over the last few seconds."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._marks: deque[tuple[float, int]] = deque([(now(), 0)])

    def add(self, total_bytes: int) -> None:
        """So much has come in all."""
        moment = self._now()
        if len(self._marks) > 1 and moment - self._marks[-2][0] < MARK_SECONDS:
            self._marks.pop()
        self._marks.append((moment, total_bytes))
        while len(self._marks) > 2 and self._marks[1][0] < moment - RATE_WINDOW_SECONDS:
            self._marks.popleft()

    @property
    def rate(self) -> float:
        """0 until two marks are apart."""
        (start, first), (end, last) = self._marks[0], self._marks[-1]
        return max(0.0, (last - first) / (end - start)) if end > start else 0.0


@dataclass(frozen=True, slots=True)
class _Amounts:
    """One item's bytes, or those of all."""

    size_bytes: int = 0
    held_bytes: int = 0
    before_bytes: int = 0
    """Of those held, there before this command."""

    def plus(self, other: "_Amounts") -> "_Amounts":
        return _Amounts(
            self.size_bytes + other.size_bytes,
            self.held_bytes + other.held_bytes,
            self.before_bytes + other.before_bytes,
        )

    def minus(self, other: "_Amounts") -> "_Amounts":
        return self.plus(_Amounts(-other.size_bytes, -other.held_bytes, -other.before_bytes))


class TransferBar:
    """A context manager. Items are told by name; bytes that were there before count as held, not as rate."""

    def __init__(self, title: str, count: int, total_bytes: int, now: Callable[[], float] = time.monotonic) -> None:
        self._title = title
        self._count = count
        self._meter = RateMeter(now)
        self._items: dict[str, _Amounts] = {}
        self._all = _Amounts()
        self._announced_bytes = total_bytes
        self._done = 0
        self._waiting = self._doing = ""
        self._rich: RichProgress | None = None

    def __enter__(self) -> "TransferBar":
        if on_terminal(sys.stderr):
            self._rich = _make_rich()
            self._rich.start()
            self._task = self._rich.add_task(safe(self._title), total=None, figures="")
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
        before_bytes: int = 0,
        waiting: str = "",
        doing: str = "",
    ) -> None:
        """How far one item is. waiting: why nothing comes, and doing: what goes on instead of a
        transfer; empty when bytes flow."""
        amounts = _Amounts(size_bytes, held_bytes, before_bytes)
        self._all = self._all.plus(amounts).minus(self._items.get(name, _Amounts()))
        self._items[name] = amounts
        self._meter.add(self._all.held_bytes - self._all.before_bytes)
        if waiting and self._rich is None and not self._waiting:
            note(f"minga: {safe(name)}: {safe(waiting)}")
        self._waiting, self._doing = waiting, waiting or doing
        self._show()

    def ended(self, name: str) -> None:
        """One item is done, or given up."""
        self._done += 1
        self._show()

    def figures(self) -> str:
        """What stands right of the bar: `12 of 40 files  1.5 GiB of 3 GiB  120 MiB/s  13 s left`."""
        held, total, rate = self._all.held_bytes, self._total_bytes(), self._meter.rate
        words = [f"{self._done} of {self._count} files"] if self._count > 1 else []
        words.append(f"{format_bytes(held)} of {format_bytes(total)}" if total else "")
        if self._doing:
            words.append(safe(self._doing))
        elif rate > 0:
            words.append(f"{format_bytes(rate)}/s")
            words.append(f"{format_seconds((total - held) / rate)} left" if total > held else "")
        return "  ".join(filter(None, words))

    def _total_bytes(self) -> int:
        """What was announced, or what the items turned out to be when that is more."""
        return max(self._announced_bytes, self._all.size_bytes)

    def _show(self) -> None:
        if self._rich is not None:
            total = self._total_bytes() or None
            self._rich.update(self._task, total=total, completed=self._all.held_bytes, figures=self.figures())


def _make_rich() -> "RichProgress":
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        TextColumn("{task.fields[figures]}", markup=False),
        console=Console(stderr=True),
        refresh_per_second=REFRESH_PER_SECOND,
        transient=True,
        expand=True,
    )
