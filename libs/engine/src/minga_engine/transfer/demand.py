"""What is wanted of each content in this process, by those who read it and by those who want the file."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from weakref import WeakValueDictionary

from minga_core.ids import ContentId
from minga_engine.swarm import events as ev

OnEvent = Callable[[ev.Event], None]


class Demand:
    """What is wanted of one content. Only for the event loop's thread."""

    def __init__(self) -> None:
        self.in_place = asyncio.Event()
        """Set once somebody has wanted the file to stay: it is put in place when it is whole."""
        self.overwrite = False
        """Whether it may replace what has its name."""
        self._windows: dict[int, ev.ReaderMoved] = {}
        self._listeners: list[OnEvent] = []
        self._next_id = 1

    @contextmanager
    def want_all(self, *, overwrite: bool = False) -> Iterator[None]:
        """All of it is wanted, in place, until the end of the block."""
        self.in_place.set()
        self.overwrite |= overwrite
        reader = self.new_reader()
        self.move(reader, 0, 0, rest=True)
        try:
            yield
        finally:
            self.leave(reader)

    def new_reader(self) -> int:
        """The number of one that is about to want something."""
        self._next_id += 1
        return self._next_id

    def move(self, reader: int, start: int, stop: int, *, rest: bool) -> None:
        """A reader wants those chunks from now on; see ReaderMoved."""
        moved = ev.ReaderMoved(reader, start, stop, rest)
        if self._windows.get(reader) != moved:
            self._windows[reader] = moved
            self._emit(moved)

    def leave(self, reader: int) -> None:
        """A reader wants nothing any more."""
        if self._windows.pop(reader, None) is not None:
            self._emit(ev.ReaderLeft(reader))

    @contextmanager
    def followed(self, listener: OnEvent) -> Iterator[None]:
        """Calls the listener with what is wanted now, and with each change until the end of the block."""
        for moved in self._windows.values():
            listener(moved)
        self._listeners.append(listener)
        try:
            yield
        finally:
            self._listeners.remove(listener)

    def _emit(self, event: ev.Event) -> None:
        for listener in list(self._listeners):
            listener(event)


class Demands:
    """The demand of every content. One for a process."""

    def __init__(self) -> None:
        self._by_content: WeakValueDictionary[ContentId, Demand] = WeakValueDictionary()

    def of(self, content_id: ContentId) -> Demand:
        """That of a content, the same one as long as somebody has it."""
        demand = self._by_content.get(content_id)
        if demand is None:
            demand = self._by_content[content_id] = Demand()
        return demand
