"""Keeps what a large table is made of out of Python's garbage collection.

A full collection looks at every object while the event loop stands still: 0.4 s at 300,000 files, and ten of them on
the way there. What is frozen is not looked at. It is freed as ever once nothing refers to it, unless it is in a cycle
then: rows, names and entries of the index never are, a few tasks that were under way when the table grew may be.
"""

import gc

from minga_peer.share.table import FileTable

STEP_ROWS = 20_000
"""Growth of the table that one collection looks at: about 60 ms."""


class LongLived:
    """Freezes what is there when it is made, and then what comes as the table grows; not for rows that change."""

    def __init__(self, table: FileTable) -> None:
        self._table = table
        self._next_rows = len(table) + STEP_ROWS
        gc.freeze()

    def table_changed(self) -> None:
        """Look whether the table is larger than ever by a step."""
        if len(self._table) >= self._next_rows:
            self._next_rows = len(self._table) + STEP_ROWS
            # What is garbage already is collected and not kept.
            gc.collect()
            gc.freeze()
