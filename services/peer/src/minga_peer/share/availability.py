"""Who waits for news of which content."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from minga_core.ids import ContentId


class Availability:
    """Wakes those who follow a content. Only for the event loop's thread."""

    def __init__(self) -> None:
        self._followers: dict[ContentId, set[asyncio.Event]] = {}

    @contextmanager
    def followed(self, content_id: ContentId) -> Iterator[asyncio.Event]:
        """An event that is set at each news of the content; the follower clears it before it looks."""
        event = asyncio.Event()
        self._followers.setdefault(content_id, set()).add(event)
        try:
            yield event
        finally:
            followers = self._followers[content_id]
            followers.discard(event)
            if not followers:
                del self._followers[content_id]

    def changed(self, content_id: ContentId) -> None:
        """There is news."""
        for event in self._followers.get(content_id, ()):
            event.set()
