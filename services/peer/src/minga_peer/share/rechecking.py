"""Chunks that downloaders have refused: each is read again here, since a disk may change what no program has changed.

A report is only a reason to look. Anybody can send one, so each costs at most one read of a chunk, one at a time, and
there are few of them in a while, in all and from each host.
"""

import asyncio
from collections import Counter
from datetime import timedelta

from minga_core.clock import Clock
from minga_core.errors import BusyError, ContentNotHeldError, InvalidArgumentError
from minga_core.ids import ContentId
from minga_engine.parts.disk import DiskPool
from minga_peer.share.inventory import Inventory
from minga_peer.share.store_metrics import StoreMetrics
from minga_peer.share.verifying import Verifier

WINDOW_SECONDS = 600.0
"""A chunk that was good is not read again within this time. Limits count reports of it."""
RETRY_AFTER = timedelta(minutes=1)
MAX_REPORTS = 256
MAX_REPORTS_EACH = 32
"""Of one host, by the limits of a window."""


class Rechecks:
    """The reports that wait. Only for the event loop's thread; `run` does the work."""

    def __init__(
        self, inventory: Inventory, verifier: Verifier, pool: DiskPool, clock: Clock, metrics: StoreMetrics | None
    ) -> None:
        self._inventory = inventory
        self._verifier = verifier
        self._pool = pool
        self._clock = clock
        self._metrics = metrics
        self._waiting: asyncio.Queue[tuple[ContentId, int]] = asyncio.Queue()
        self._window_ends_at = 0.0
        self._seen: set[tuple[ContentId, int]] = set()
        self._by_host: Counter[str] = Counter()

    def report(self, content_id: ContentId, index: int, host: str) -> None:
        """Have a chunk read again because `host` received it wrong. Nothing happens when it was a short time ago.

        Raises ContentNotHeldError, InvalidArgumentError when there is no such chunk, BusyError above the limits.
        """
        held = self._inventory.held(content_id)
        if held is None:
            raise ContentNotHeldError(f"{content_id.short} is not held here")
        if not 0 <= index < held.count:
            raise InvalidArgumentError(f"there is no chunk {index}: the content has {held.count}")
        self._begin_window()
        if (content_id, index) in self._seen or index not in held:
            return
        if len(self._seen) >= MAX_REPORTS or self._by_host[host] >= MAX_REPORTS_EACH:
            raise BusyError("too many chunks were reported", retry_after=RETRY_AFTER)
        self._seen.add((content_id, index))
        self._by_host[host] += 1
        self._waiting.put_nowait((content_id, index))

    def _begin_window(self) -> None:
        now = self._clock.monotonic()
        if now >= self._window_ends_at:
            self._window_ends_at = now + WINDOW_SECONDS
            self._seen.clear()
            self._by_host.clear()

    async def run(self) -> None:
        """Read reported chunks, one at a time, until cancelled."""
        while True:
            content_id, index = await self._waiting.get()
            good = await self._verifier.verify_chunk(content_id, index, self._pool)
            if not good:
                # The same chunk, of another file or fetched anew, may be wrong again.
                self._seen.discard((content_id, index))
            if self._metrics is not None:
                self._metrics.chunk_rechecked(good=good)
