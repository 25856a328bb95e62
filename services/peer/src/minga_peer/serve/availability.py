"""Sends the chunks that are held of a content to all that watch it.

What comes is looked up and encoded once for all watchers, and written to their sockets at once: a task of each watcher
for each update was 7 % of a peer's processor time in a swarm of 16. Only a watcher that does not read in time, or reads
TLS, has its own task send.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager

from minga_core.chunks import ChunkSet
from minga_core.clock import Clock
from minga_core.errors import ContentNotHeldError
from minga_core.ids import ContentId
from minga_engine.swarm.updates import update_pause
from minga_engine.wire.http_format import encode_availability, stream_head
from minga_peer.share.store import ContentStore

SendNow = Callable[[bytes], int]
"""Sends what can be sent without waiting; how many bytes that was."""


class Watcher:
    """One client, and what it has not been sent yet."""

    def __init__(self, send_now: SendNow) -> None:
        self._send_now = send_now
        self._unsent = bytearray()
        self._changed = asyncio.Event()
        self._ended = False

    def add(self, line: bytes) -> None:
        """Send it, or keep it for `unsent`."""
        if not self._unsent:
            line = line[self._send_now(line) :]
        if line:
            self._unsent += line
            self._changed.set()

    def end(self) -> None:
        """No more comes."""
        self._ended = True
        self._changed.set()

    async def unsent(self) -> bytes:
        """What could not be sent at once, as soon as there is some; empty once no more comes. Once it is sent, call
        `sent`: until then nothing else is."""
        while not self._unsent and not self._ended:
            await self._changed.wait()
            self._changed.clear()
        return bytes(self._unsent)

    def sent(self, data: bytes) -> None:
        """What `unsent` gave was sent."""
        del self._unsent[: len(data)]


class Availability:
    """Who watches which content. Only for the event loop's thread."""

    def __init__(self, store: ContentStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._contents: dict[ContentId, _Watched] = {}
        self._watcher_count = 0

    @contextmanager
    def watched(self, content_id: ContentId, send_now: SendNow) -> Iterator[Watcher]:
        """Has a client sent all chunks held now, then those that come, until the content is whole or no longer held, or
        the block ends. Raises ContentNotHeldError."""
        if self._store.held(content_id) is None:
            raise ContentNotHeldError(f"{content_id.short} is not held here")
        watcher = Watcher(send_now)
        watcher.add(stream_head("text/plain"))
        watched = self._contents.get(content_id)
        if watched is None:
            watched = self._contents[content_id] = _Watched()
            watched.task = asyncio.create_task(self._follow(content_id, watched), name=f"held-{content_id.short}")
        watched.add(watcher)
        self._watcher_count += 1
        try:
            yield watcher
        finally:
            self._watcher_count -= 1
            watched.watchers.discard(watcher)
            if not watched.watchers and watched.task is not None:
                watched.task.cancel()
                self._forget(content_id, watched)

    def _forget(self, content_id: ContentId, watched: "_Watched") -> None:
        """Have the next watcher begin anew."""
        if self._contents.get(content_id) is watched:
            del self._contents[content_id]

    async def _follow(self, content_id: ContentId, watched: "_Watched") -> None:
        since = self._clock.monotonic()
        try:
            async with aclosing(self._store.follow(content_id)) as updates:
                async for chunks in updates:
                    held = self._store.held(content_id)
                    complete = held is not None and held.complete
                    watched.update(chunks, complete=complete)
                    if not complete:
                        # What comes just now of a provisional content is all that others can ask for.
                        provisional = self._store.is_provisional(content_id)
                        seconds = 0.0 if provisional else self._clock.monotonic() - since
                        await asyncio.sleep(update_pause(self._watcher_count, seconds))
        finally:
            self._forget(content_id, watched)
            for watcher in watched.watchers:
                watcher.end()


class _Watched:
    """A content and its watchers."""

    def __init__(self) -> None:
        self.watchers: set[Watcher] = set()
        self.task: asyncio.Task[None] | None = None
        self._known: ChunkSet | None = None
        """What all watchers know."""

    def add(self, watcher: Watcher) -> None:
        """Have it know what the others know."""
        if self._known is not None:
            watcher.add(encode_availability(self._known, complete=self._known.complete))
        self.watchers.add(watcher)

    def update(self, chunks: ChunkSet, *, complete: bool) -> None:
        """Send it to all of them."""
        self._known = chunks if self._known is None else self._known | chunks
        line = encode_availability(chunks, complete=complete)
        for watcher in self.watchers:
            watcher.add(line)
