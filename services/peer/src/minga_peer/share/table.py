"""The file table that is announced: rows, a revision that grows with each change, and what changed since when."""

from collections import deque
from collections.abc import Iterable, Sequence

from minga_core.records import FileRow, RowKey, TableChange
from minga_engine.parts.content_store import RowsChanged

MAX_JOURNAL_ROWS = 20_000
"""Rows that the journal remembers; a reader further behind takes the whole table."""


class LocalTable:
    """Rows by key, with a journal. Not for use by several threads."""

    def __init__(self, rows: Iterable[FileRow] = ()) -> None:
        self._rows = {row.key: row for row in rows}
        self._journal: deque[tuple[int, RowsChanged]] = deque()
        self._journal_rows = 0
        self.revision = 1
        """Of the rows as they are; 0 is the table that nobody has pushed yet."""

    def apply(self, change: RowsChanged) -> None:
        """Takes a change; the revision grows by one."""
        for key in change.remove:
            self._rows.pop(key, None)
        for row in change.put:
            self._rows[row.key] = row
        self.revision += 1
        self._journal.append((self.revision, change))
        self._journal_rows += len(change.put) + len(change.remove)
        while self._journal and self._journal_rows > MAX_JOURNAL_ROWS:
            _, oldest = self._journal.popleft()
            self._journal_rows -= len(oldest.put) + len(oldest.remove)

    def snapshot(self) -> tuple[Sequence[FileRow], int]:
        """All rows, and their revision."""
        return list(self._rows.values()), self.revision

    def change_since(self, base_revision: int) -> TableChange | None:
        """What turns the table of that revision into this one; None when the journal does not reach back so far."""
        if base_revision == self.revision:
            return TableChange(base_revision, self.revision)
        if not self._journal or not self._journal[0][0] - 1 <= base_revision < self.revision:
            return None
        touched: set[RowKey] = set()
        for revision, change in self._journal:
            if revision > base_revision:
                touched.update(row.key for row in change.put)
                touched.update(change.remove)
        put = tuple(self._rows[key] for key in touched if key in self._rows)
        remove = tuple(key for key in touched if key not in self._rows)
        return TableChange(base_revision, self.revision, put, remove)
