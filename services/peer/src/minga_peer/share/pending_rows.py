"""Rows of complete files of which something is yet to be done."""

from collections.abc import Callable, Mapping
from itertools import islice

from minga_core.names import Name
from minga_core.records import FileRow, RowKey
from minga_peer.share.indexed_file import IndexedFile


class PendingRows:
    """Keys of rows of a table, the oldest first.

    Of a file's row it keeps the name alone, which the file has anyway: a hundred thousand files may be shared at once,
    and then all of them wait to be published. files, get: of the table.
    """

    def __init__(self, files: Mapping[Name, IndexedFile], get: Callable[[RowKey], FileRow | None]) -> None:
        self._files = files
        self._get = get
        self._pending: dict[Name | RowKey, None] = {}

    def __len__(self) -> int:
        return len(self._pending)

    def __contains__(self, key: RowKey) -> bool:
        return (key.name if self._is_file(key) else key) in self._pending

    def _is_file(self, key: RowKey) -> bool:
        file = self._files.get(key.name)
        return file is not None and file.content_id == key.content_id

    def add(self, key: RowKey) -> None:
        """Add a row of the table; no error when it is there."""
        self._pending[key.name if self._is_file(key) else key] = None

    def discard(self, key: RowKey) -> None:
        """Remove a row, which may be gone from the table; no error when it is not there."""
        if not self._pending:
            return
        self._pending.pop(key, None)
        if key.name not in self._files or self._is_file(key):
            self._pending.pop(key.name, None)
        if not self._pending:
            # A dictionary from which everything was removed is as large as ever.
            self._pending.clear()

    def first(self, limit: int) -> list[FileRow]:
        """The oldest rows, as they are now; at most `limit`."""
        keys = (self._key(each) for each in islice(self._pending, limit))
        return [row for key in keys if (row := self._get(key)) is not None]

    def last(self) -> RowKey | None:
        """The key of the newest row."""
        newest = next(reversed(self._pending), None)
        return None if newest is None else self._key(newest)

    def _key(self, each: Name | RowKey) -> RowKey:
        return each if isinstance(each, RowKey) else self._files[each].key
