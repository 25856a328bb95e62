"""The file table that is announced: rows, a revision that grows with each change, and what changed since when."""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from minga_core.records import PUBLISH, FileRow, HoldingState, RowKey, TableChange

MAX_JOURNAL_ROWS = 20_000
"""Rows that the journal remembers, or as many as the table has: a reader further behind takes the whole table, which is
less then."""
MAX_CHANGE_ROWS = 2_000
"""Rows that a reader takes at a time. A registry takes 3,000 as a change, and requests the whole table instead of a
larger one."""


@dataclass(frozen=True, slots=True)
class RowsChanged:
    """Rows of the file table that changed; a key is in one of the two at most."""

    put: tuple[FileRow, ...] = ()
    remove: tuple[RowKey, ...] = ()


class FileTable:
    """Rows by key, with a journal. Only for one thread."""

    def __init__(self, rows: Iterable[FileRow] = ()) -> None:
        self._rows = {row.key: row for row in rows}
        self._journal: deque[tuple[int, RowsChanged]] = deque()
        self._journal_rows = 0
        self._listeners: list[Callable[[RowsChanged], None]] = []
        self.unpublished = {row.key: row for row in self._rows.values() if _is_unpublished(row, b"")}
        """Rows of complete files whose time of publication is not known yet, the oldest first."""
        self.unpublishable: dict[RowKey, FileRow] = {}
        """Those of them that the registry refuses to publish."""
        self.outdated: dict[RowKey, FileRow] = {}
        """Rows of complete files whose tag is of another key than that of the network now."""
        self._key_id = b""
        self.revision = 1
        """Revision of the rows as they are; 0 is the table of a peer that has pushed none."""

    def __len__(self) -> int:
        return len(self._rows)

    def on_change(self, callback: Callable[[RowsChanged], None]) -> None:
        """Call back after each change."""
        self._listeners.append(callback)

    def get(self, key: RowKey) -> FileRow | None:
        """The row under a key."""
        return self._rows.get(key)

    def rows(self) -> list[FileRow]:
        """All rows."""
        return list(self._rows.values())

    def apply(self, change: RowsChanged) -> None:
        """Change rows; the revision grows by one."""
        for key in change.remove:
            self._rows.pop(key, None)
            self._note(key, None)
        for row in change.put:
            self._rows[row.key] = row
            self._note(row.key, row)
        self.revision += 1
        self._remember(change)
        while self._journal_rows > max(MAX_JOURNAL_ROWS, len(self._rows)):
            self._forget_oldest()
        for listener in self._listeners:
            listener(change)

    def expect_tags_of(self, key_id: bytes) -> None:
        """Note which key signs tags: rows without a tag are to be published then, and tags of other keys are outdated.

        key_id: empty in a network without tags.
        """
        if key_id == self._key_id:
            return
        self._key_id = key_id
        for key, row in self._rows.items():
            if key not in self.unpublishable:
                self._note(key, row)

    def _note(self, key: RowKey, row: FileRow | None) -> None:
        """Note whether the row is still to be published, or needs another tag."""
        self.unpublishable.pop(key, None)
        self.outdated.pop(key, None)
        if row is not None and _is_unpublished(row, self._key_id):
            self.unpublished[key] = row
            return
        self.unpublished.pop(key, None)
        if row is not None and row.state is HoldingState.COMPLETE and not row.tag.startswith(self._key_id):
            self.outdated[key] = row

    def refuse_to_publish(self, rows: Iterable[FileRow]) -> None:
        """Move rows, if they are as they were, from `unpublished` to `unpublishable`, until they change."""
        for row in rows:
            if self.unpublished.get(row.key) == row:
                self.unpublishable[row.key] = self.unpublished.pop(row.key)

    def _remember(self, change: RowsChanged) -> None:
        """Keep what changed for readers, which take no row that is yet to be published: it changes again when it is."""
        put = tuple(row for row in change.put if row.key not in self.unpublished)
        self._journal.append((self.revision, RowsChanged(put, change.remove)))
        self._journal_rows += _weight(self._journal[-1][1])

    def change_since(self, base_revision: int) -> TableChange | None:
        """What turns the table of that revision into a later one: this one, or as far as MAX_CHANGE_ROWS reach.

        None when only the whole table will do: the journal does not reach so far, or the next step alone is larger.

        The journal forgets what came before that revision: the one reader's revisions only grow.
        """
        if base_revision == self.revision:
            return TableChange(base_revision, self.revision)
        if not self._journal or not self._journal[0][0] - 1 <= base_revision < self.revision:
            return None
        while self._journal[0][0] <= base_revision:
            self._forget_oldest()
        touched: set[RowKey] = set()
        reached = base_revision
        for revision, change in self._journal:
            if len(touched) + len(change.put) + len(change.remove) > MAX_CHANGE_ROWS:
                break
            touched.update(row.key for row in change.put)
            touched.update(change.remove)
            reached = revision
        if reached == base_revision:
            return None
        # As they are now: a row that changes again after `reached` comes again with that change.
        put = tuple(self._rows[key] for key in touched if key in self._rows)
        remove = tuple(key for key in touched if key not in self._rows)
        return TableChange(base_revision, reached, put, remove)

    def _forget_oldest(self) -> None:
        _, oldest = self._journal.popleft()
        self._journal_rows -= _weight(oldest)


def _weight(change: RowsChanged) -> int:
    """Of a change in the journal's bound; an empty one is not nothing."""
    return max(1, len(change.put) + len(change.remove))


def _is_unpublished(row: FileRow, key_id: bytes) -> bool:
    """A time that nothing proves is none in a network with tags."""
    return row.state is HoldingState.COMPLETE and (row.published_ns <= PUBLISH or bool(key_id and not row.tag))
