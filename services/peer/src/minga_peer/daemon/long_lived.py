"""Keeps what a large table is made of out of Python's garbage collection.

A full collection looks at every object while the event loop stands still: 0.4 s at 300,000 files, and ten of them on
the way there. What is frozen is not looked at. It is freed as ever once nothing refers to it, unless it is in a cycle
then: rows, names and entries of the index never are, a few tasks that were under way when the table grew may be.
"""

import asyncio
import gc
from collections.abc import Awaitable, Callable
from contextlib import suppress

from minga_peer.share.table import FileTable

STEP_ROWS = 20_000
"""Growth of the table that one collection looks at: about 60 ms."""
GC_THRESHOLD = 50_000
"""New objects that are looked through for cycles at a time: some 10 ms. More than what is in memory of small files on
their way, which is gone by itself a moment later: with 10,000 they were looked through twice, ten times as many of them
at once the second time, for a tenth of the event loop's time."""
MAX_SCAN_SECONDS = 600.0
"""How long a first scan may keep collections from being made."""


class LongLived:
    """Freezes what is there when it is made, and then what comes as the table grows; not for rows that change.

    Has Python look for cycles less often from then on.
    """

    def __init__(self, table: FileTable) -> None:
        self._table = table
        self._next_rows = len(table) + STEP_ROWS
        gc.freeze()
        gc.set_threshold(GC_THRESHOLD)

    def table_changed(self) -> None:
        """Look whether the table is larger than ever by a step."""
        if len(self._table) >= self._next_rows:
            self._next_rows = len(self._table) + STEP_ROWS
            if gc.isenabled():
                # What is garbage already is collected and not kept.
                gc.collect()
            gc.freeze()

    async def first_scan(self, done: Callable[[], Awaitable[None]]) -> None:
        """Keep collections from being made until the folder was scanned for the first time: what a scan finds is there
        all at once, two objects for each file, and nothing of it is garbage."""
        gc.disable()
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(MAX_SCAN_SECONDS):
                    await done()
        finally:
            gc.freeze()
            gc.enable()
