"""What is shared now: files by name and by content, and the rows that changed, told in batches."""

from collections.abc import Callable, Iterable

from minga_core.ids import ContentId
from minga_core.names import Name
from minga_core.records import FileRow, HoldingState, RowKey
from minga_peer.chunkstore.index import IndexedFile
from minga_peer.chunkstore.ports import RowsChanged

BATCH_ROWS = 1000
"""Rows told at once; a first scan of a million files is a thousand pushes, not a million."""


class Catalog:
    """Complete files, and the contents that are here in part. Only for the event loop's thread."""

    def __init__(self) -> None:
        self.files: dict[Name, IndexedFile] = {}
        self._names: dict[ContentId, set[Name]] = {}
        self._partial: dict[RowKey, FileRow] = {}
        self._listeners: list[Callable[[RowsChanged], None]] = []
        self.shared_bytes = 0

    def listen(self, callback: Callable[[RowsChanged], None]) -> None:
        """Calls back at each change."""
        self._listeners.append(callback)

    def rows(self) -> list[FileRow]:
        """The whole table."""
        return [row_of(file) for file in self.files.values()] + list(self._partial.values())

    def holding(self, content_id: ContentId) -> IndexedFile | None:
        """Some complete file with that content."""
        names = self._names.get(content_id)
        return self.files[next(iter(names))] if names else None

    def change(
        self,
        put: Iterable[IndexedFile] = (),
        remove: Iterable[Name] = (),
        part_put: Iterable[FileRow] = (),
        part_remove: Iterable[RowKey] = (),
    ) -> None:
        """Takes files and parts in and out, and tells the rows that changed."""
        gone: set[RowKey] = set()
        rows: dict[RowKey, FileRow] = {}
        for key in part_remove:
            if self._partial.pop(key, None) is not None:
                gone.add(key)
        for row in part_put:
            self._partial[row.key] = row
            rows[row.key] = row
        for name in remove:
            if (file := self._take_out(name)) is not None:
                gone.add(key_of(file))
        for file in put:
            if (before := self._take_out(file.name)) is not None:
                gone.add(key_of(before))
            self._put_in(file)
            rows[key_of(file)] = row_of(file)
        gone -= rows.keys()
        self._tell(list(rows.values()), list(gone))

    def _put_in(self, file: IndexedFile) -> None:
        self.files[file.name] = file
        self._names.setdefault(file.content_id, set()).add(file.name)
        self.shared_bytes += file.stamp.size_bytes

    def _take_out(self, name: Name) -> IndexedFile | None:
        file = self.files.pop(name, None)
        if file is None:
            return None
        names = self._names[file.content_id]
        names.discard(name)
        if not names:
            del self._names[file.content_id]
        self.shared_bytes -= file.stamp.size_bytes
        return file

    def _tell(self, put: list[FileRow], remove: list[RowKey]) -> None:
        for start in range(0, max(len(put), len(remove)), BATCH_ROWS):
            end = start + BATCH_ROWS
            changed = RowsChanged(tuple(put[start:end]), tuple(remove[start:end]))
            for listener in self._listeners:
                listener(changed)


def key_of(file: IndexedFile) -> RowKey:
    """The row's key."""
    return RowKey(file.name, file.content_id)


def row_of(file: IndexedFile) -> FileRow:
    """The row of a complete file."""
    return FileRow(
        key_of(file), file.stamp.size_bytes, file.stamp.modified_ns, file.published_ns, HoldingState.COMPLETE
    )
