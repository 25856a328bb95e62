"""What is shared now: files by name and by content, and the rows that changed, told in batches."""

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from minga_core.ids import ContentId
from minga_core.names import Name
from minga_core.records import FileRow, HoldingState, RowKey
from minga_engine.parts.content_store import RowsChanged
from minga_peer.share.index import IndexedFile

BATCH_ROWS = 1000
"""Rows told at once; a first scan of a million files is a thousand pushes, not a million."""


class Catalog:
    """Complete files, and the contents that are here in part. Only for the event loop's thread."""

    def __init__(self) -> None:
        self.files: dict[Name, IndexedFile] = {}
        self._names: dict[ContentId, set[Name]] = {}
        self._partial: dict[RowKey, FileRow] = {}
        self._listeners: list[Callable[[RowsChanged], None]] = []
        self._gone_listeners: list[Callable[[IndexedFile], None]] = []
        self._folders: Counter[str] = Counter()
        self.shared_bytes = 0

    def listen(self, callback: Callable[[RowsChanged], None]) -> None:
        """Calls back at each change."""
        self._listeners.append(callback)

    def listen_gone(self, callback: Callable[[IndexedFile], None]) -> None:
        """Calls back with each file that is not shared any more, or not as it was; after the rows were told."""
        self._gone_listeners.append(callback)

    def rows(self) -> list[FileRow]:
        """The whole table."""
        complete = [row_of(file) for file in self.files.values()]
        return complete + [row for key, row in self._partial.items() if not self._is_complete(key)]

    def holding(self, content_id: ContentId) -> IndexedFile | None:
        """Some complete file with that content."""
        names = self._names.get(content_id)
        return self.files[next(iter(names))] if names else None

    def at(self, path: str) -> IndexedFile | None:
        """The file with exactly that path."""
        file = self.files.get(Name(unicodedata.normalize("NFC", path)))
        return file if file is not None and file.path == path else None

    def is_folder(self, path: str) -> bool:
        """Whether files are shared below that path."""
        return path in self._folders

    def change(
        self,
        put: Iterable[IndexedFile] = (),
        remove: Iterable[Name] = (),
        part_put: Iterable[FileRow] = (),
        part_remove: Iterable[RowKey] = (),
    ) -> None:
        """Takes files and parts in and out, and tells the rows that changed."""
        put, remove, part_put, part_remove = list(put), list(remove), list(part_put), list(part_remove)
        before = {key: self._row(key) for key in self._keys(put, remove, part_put, part_remove)}
        for key in part_remove:
            self._partial.pop(key, None)
        self._partial.update((row.key, row) for row in part_put)
        out = [self._take_out(name) for name in remove]
        for file in put:
            out.append(self._take_out(file.name))
            self._put_in(file)
        after = {key: self._row(key) for key in before}
        rows = [row for key, row in after.items() if row is not None and row != before[key]]
        self._tell(rows, [key for key, row in after.items() if row is None and before[key] is not None])
        for gone in filter(None, out):
            for listener in self._gone_listeners:
                listener(gone)

    def _keys(
        self, put: list[IndexedFile], remove: list[Name], part_put: list[FileRow], part_remove: list[RowKey]
    ) -> Iterator[RowKey]:
        """Every row that a change may touch."""
        names = remove + [file.name for file in put]
        yield from (key_of(file) for name in names if (file := self.files.get(name)) is not None)
        yield from (key_of(file) for file in put)
        yield from (row.key for row in part_put)
        yield from part_remove

    def _row(self, key: RowKey) -> FileRow | None:
        """The row under a key: of the complete file, else of the part."""
        return row_of(self.files[key.name]) if self._is_complete(key) else self._partial.get(key)

    def _is_complete(self, key: RowKey) -> bool:
        file = self.files.get(key.name)
        return file is not None and file.content_id == key.content_id

    def _put_in(self, file: IndexedFile) -> None:
        self.files[file.name] = file
        self._names.setdefault(file.content_id, set()).add(file.name)
        self._folders.update(folders_of(file.path))
        self.shared_bytes += file.stamp.size_bytes

    def _take_out(self, name: Name) -> IndexedFile | None:
        file = self.files.pop(name, None)
        if file is None:
            return None
        names = self._names[file.content_id]
        names.discard(name)
        if not names:
            del self._names[file.content_id]
        for folder in folders_of(file.path):
            self._folders[folder] -= 1
            if not self._folders[folder]:
                del self._folders[folder]
        self.shared_bytes -= file.stamp.size_bytes
        return file

    def _tell(self, put: list[FileRow], remove: list[RowKey]) -> None:
        for start in range(0, max(len(put), len(remove)), BATCH_ROWS):
            end = start + BATCH_ROWS
            changed = RowsChanged(tuple(put[start:end]), tuple(remove[start:end]))
            for listener in self._listeners:
                listener(changed)


def folders_of(path: str) -> Iterator[str]:
    """The folders above a path: `a/b` and `a` of `a/b/c`."""
    while path := path.rpartition("/")[0]:
        yield path


def key_of(file: IndexedFile) -> RowKey:
    """The row's key."""
    return RowKey(file.name, file.content_id)


def row_of(file: IndexedFile) -> FileRow:
    """The row of a complete file."""
    return FileRow(
        key_of(file), file.stamp.size_bytes, file.stamp.modified_ns, file.published_ns, HoldingState.COMPLETE
    )
