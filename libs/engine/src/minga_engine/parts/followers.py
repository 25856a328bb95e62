"""Who waits for news of what is held of a content."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from minga_core.ids import ContentId


class Followers:
    """Events to set, by content. Only for the event loop's thread."""

    def __init__(self) -> None:
        self._events: dict[ContentId, set[asyncio.Event]] = {}

    @property
    def any(self) -> bool:
        """Whether there are events at all."""
        return bool(self._events)

    @contextmanager
    def following(self, content_id: ContentId) -> Iterator[asyncio.Event]:
        """An event that is set whenever what is held of the content changes; clear it before looking."""
        event = asyncio.Event()
        self._events.setdefault(content_id, set()).add(event)
        try:
            yield event
        finally:
            events = self._events[content_id]
            events.discard(event)
            if not events:
                del self._events[content_id]

    def notify(self, content_id: ContentId) -> None:
        """Set the events of a content."""
        for event in self._events.get(content_id, ()):
            event.set()
