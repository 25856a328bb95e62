"""The file table that is announced: rows, a revision that grows with each change, and what changed since when."""

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sized
from dataclasses import dataclass

from minga_core.names import Name
from minga_core.records import PUBLISH, FileRow, HoldingState, RowKey, TableChange
from minga_peer.share.indexed_file import IndexedFile
from minga_peer.share.pending_rows import PendingRows
from minga_peer.share.requested import Requested

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
    """Rows by key, with a journal. Only for one thread.

    files: complete files, whose rows are in the table and are made of them when they are wanted. Who changes them
    applies what that changes.
    """

    def __init__(self, rows: Iterable[FileRow] = (), files: Mapping[Name, IndexedFile] | None = None) -> None:
        self._rows = {row.key: row for row in rows}
        self._files = {} if files is None else files
        self._journal: deque[tuple[int, tuple[Name | RowKey, ...]]] = deque()
        """What changed with each revision: a name for the row that is a file's, the key of any other."""
        self._journal_rows = 0
        self.requested = Requested()
        self._listeners: list[Callable[[RowsChanged], None]] = []
        self.unpublished = PendingRows(self._files, self.get)
        """Rows of complete files whose time of publication is not known yet."""
        self.unpublishable: dict[RowKey, FileRow] = {}
        """Those of them that the registry refuses to publish."""
        self.outdated = PendingRows(self._files, self.get)
        """Rows of complete files whose tag is of another key than that of the network now."""
        self._key_id = b""
        self.revision = 1
        """Revision of the rows as they are; 0 is the table of a peer that has pushed none."""
        for row in self._rows.values():
            self._note(row.key, row)

    def __len__(self) -> int:
        return len(self._files) + len(self._rows)

    def on_change(self, callback: Callable[[RowsChanged], None]) -> None:
        """Call back after each change."""
        self._listeners.append(callback)

    def get(self, key: RowKey) -> FileRow | None:
        """The row under a key."""
        return self._files[key.name].row if self._is_file(key) else self._rows.get(key)

    def rows(self) -> list[FileRow]:
        """All rows."""
        return [*self._rows.values(), *(file.row for file in self._files.values())]

    def _is_file(self, key: RowKey) -> bool:
        """Whether the row under a key is that of a file."""
        file = self._files.get(key.name)
        return file is not None and file.content_id == key.content_id

    def apply(self, change: RowsChanged) -> None:
        """Change rows; the revision grows by one."""
        for key in change.remove:
            self._rows.pop(key, None)
            self._note(key, None)
        for row in change.put:
            key = row.key
            if not self._is_file(key):
                self._rows[key] = row
            elif self._rows:
                self._rows.pop(key, None)
            self._note(key, row)
        self.revision += 1
        self._remember(change)
        while self._journal_rows > max(MAX_JOURNAL_ROWS, len(self)):
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
        for row in self.rows():
            if row.key not in self.unpublishable:
                self._note(row.key, row)

    def _note(self, key: RowKey, row: FileRow | None) -> None:
        """Note whether the row is still to be published, or needs another tag."""
        if self.unpublishable:
            self.unpublishable.pop(key, None)
        self.outdated.discard(key)
        if row is not None and _is_unpublished(row, self._key_id):
            self.unpublished.add(key)
            return
        self.unpublished.discard(key)
        if row is not None and row.state is HoldingState.COMPLETE and not row.tag.startswith(self._key_id):
            self.outdated.add(key)

    def refuse_to_publish(self, rows: Iterable[FileRow]) -> None:
        """Move rows, if they are as they were, from `unpublished` to `unpublishable`, until they change."""
        for row in rows:
            if row.key in self.unpublished and self.get(row.key) == row:
                self.unpublished.discard(row.key)
                self.unpublishable[row.key] = row

    def _remember(self, change: RowsChanged) -> None:
        """Keep what changed for readers, which take no row that is yet to be published: it changes again when it is."""
        put = [row.key for row in change.put if row.key not in self.unpublished]
        touched = (*(key.name if self._is_file(key) else key for key in put), *change.remove)
        self._journal.append((self.revision, touched))
        self._journal_rows += _weight(touched)

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
        touched: set[Name | RowKey] = set()
        reached = base_revision
        for revision, some in self._journal:
            if len(touched) + len(some) > MAX_CHANGE_ROWS:
                break
            touched.update(some)
            reached = revision
        if reached == base_revision:
            return None
        return self._change_of(touched, base_revision, reached)

    def _change_of(self, touched: Iterable[Name | RowKey], base_revision: int, revision: int) -> TableChange:
        """Rows as they are now: one that changes again after `revision` comes again with that change, and so does the
        end of a file that is no more under its name."""
        put: dict[RowKey, FileRow] = {}
        remove: list[RowKey] = []
        for each in touched:
            if isinstance(each, RowKey):
                row = self.get(each)
                if row is None:
                    remove.append(each)
            else:
                file = self._files.get(each)
                row = None if file is None else file.row
            if row is not None:
                put[row.key] = row
        return TableChange(base_revision, revision, tuple(put.values()), tuple(remove))

    def _forget_oldest(self) -> None:
        _, oldest = self._journal.popleft()
        self._journal_rows -= _weight(oldest)


def _weight(touched: Sized) -> int:
    """Of a change in the journal's bound; an empty one is not nothing."""
    return max(1, len(touched))


def _is_unpublished(row: FileRow, key_id: bytes) -> bool:
    """A time that nothing proves is none in a network with tags."""
    return row.state is HoldingState.COMPLETE and (row.published_ns <= PUBLISH or bool(key_id and not row.tag))
