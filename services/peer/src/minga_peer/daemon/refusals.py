"""What the registry refuses of a table, and how to announce the rest."""

from collections.abc import Sequence

from minga_core.errors import LimitExceededError, MingaError, RowRefusedError
from minga_core.records import FileRow, RowKey

FIRST_WAIT_SECONDS = 0.2
MAX_WAIT_SECONDS = 120.0
"""A refusal is not cured by trying again: the whole table is pushed again no more often than this in the end."""
FULL_TABLE_SECONDS = 60.0
PACE_SECONDS = 3.0
"""Between pushes while rows are left out: each is of everything."""


class Refusals:
    """Learns from the registry's errors which rows to leave out: those it names, and the newest above its limit."""

    def __init__(self) -> None:
        self._bad: dict[RowKey, FileRow] = {}
        self._max_rows: int | None = None
        self._in_a_row = 0
        self._reason = ""
        self.left_out: frozenset[RowKey] = frozenset()
        """Keys of rows that the last `accepted` left out."""
        self.problem = ""
        """In one line; empty while everything is announced."""

    @property
    def any(self) -> bool:
        """Whether rows may have to be left out."""
        return bool(self._bad) or self._max_rows is not None

    def learn(self, error: MingaError, rows: Sequence[FileRow]) -> float:
        """Take in why a table of those rows was refused; seconds until the next push makes sense."""
        self._reason = str(error)
        if isinstance(error, LimitExceededError) and error.limit is not None:
            self._max_rows = error.limit
        elif isinstance(error, RowRefusedError):
            self._bad.update((row.key, row) for row in rows if row.key.name == error.row_name)
        self.problem = f"the registry refuses the files of this peer: {self._reason}"
        self._in_a_row += 1
        return min(MAX_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2.0 ** min(self._in_a_row, 20))

    def accepted(self, rows: Sequence[FileRow]) -> Sequence[FileRow]:
        """The rows to announce. A row that was refused and is another now is tried again."""
        if not self.any:
            self.left_out = frozenset()
            return list(rows)
        good = [row for row in rows if self._bad.get(row.key) != row]
        if self._max_rows is not None and len(good) > self._max_rows:
            good = sorted(good, key=lambda row: (row.published_ns, row.key.name))[: self._max_rows]
        self.left_out = frozenset(row.key for row in rows) - {row.key for row in good}
        return good

    def pushed(self) -> float:
        """Note that what `accepted` gave was taken; seconds until the next push, which may be of everything again."""
        self._in_a_row = 0
        self.problem = f"files not announced: {len(self.left_out):,} ({self._reason})" if self.left_out else ""
        if not self.left_out:
            self._bad, self._max_rows = {}, None
            return 0.0
        return FULL_TABLE_SECONDS if self._max_rows is not None else PACE_SECONDS
