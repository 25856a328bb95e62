"""What is here: shared files by name and content, parts of downloads, and the file table that follows from both."""

import asyncio
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager

from minga_core.chunks import ChunkSet, Geometry
from minga_core.clock import Clock
from minga_core.ids import ContentId
from minga_core.names import Name
from minga_core.records import FileRow, HoldingState, RowKey
from minga_engine.parts.followers import Followers
from minga_engine.parts.part import Part
from minga_peer.share.content_names import ContentNames
from minga_peer.share.indexed_file import IndexedFile
from minga_peer.share.table import FileTable, RowsChanged


class Inventory:
    """Every change goes through here, updates `table` in one step and wakes the followers of its contents.

    Only for the event loop's thread. on_file_gone: called with each file that is no longer shared as it was.
    """

    def __init__(self, clock: Clock, on_file_gone: Callable[[IndexedFile], None] = lambda file: None) -> None:
        self._clock = clock
        self._on_file_gone = on_file_gone
        self.files: dict[Name, IndexedFile] = {}
        self.parts: dict[RowKey, Part] = {}
        self.table = FileTable()
        self.shared_bytes = 0
        self._names = ContentNames()
        self._parts_by_content: dict[ContentId, list[Part]] = {}
        self._folders: Counter[str] = Counter()
        self._followers = Followers()

    # Reading.

    def file_with(self, content_id: ContentId) -> IndexedFile | None:
        """Some shared file with that content."""
        name = self._names.any(content_id)
        return self.files[name] if name is not None else None

    def file_at(self, path: str) -> IndexedFile | None:
        """The shared file with exactly that path."""
        file = self.files.get(Name(unicodedata.normalize("NFC", path)))
        return file if file is not None and file.path == path else None

    def is_folder(self, path: str) -> bool:
        """Whether files are shared below that path."""
        return path in self._folders

    def part_with(self, content_id: ContentId) -> Part | None:
        """The part with the most chunks of a content."""
        return max(self._parts_by_content.get(content_id, ()), key=lambda part: part.held_count, default=None)

    def held(self, content_id: ContentId) -> ChunkSet | None:
        """The chunks of a content that can be served now (a copy); None when it is not held at all."""
        if (file := self.file_with(content_id)) is not None:
            return ChunkSet.full(Geometry(file.fingerprint.size_bytes).chunk_count)
        part = self.part_with(content_id)
        return None if part is None else part.held

    def following(self, content_id: ContentId) -> AbstractContextManager[asyncio.Event]:
        """See Followers."""
        return self._followers.following(content_id)

    # Changing.

    def update(
        self, put: Iterable[IndexedFile] = (), remove: Iterable[Name] = (), drop_parts: Iterable[Part] = ()
    ) -> None:
        """Add, replace and remove files and drop parts, as one change of the table."""
        touched: dict[RowKey, None] = {}
        gone: list[IndexedFile] = []
        for part in drop_parts:
            self._drop_part(part)
            touched[part.key] = None
        for name in remove:
            gone += self._remove(name)
        for file in put:
            gone += self._remove(file.name)
            self._add(file)
            touched[key_of(file)] = None
        touched.update((key_of(file), None) for file in gone)
        self._update_table(touched)
        for file in gone:
            self._on_file_gone(file)
        for key in touched:
            self._followers.notify(key.content_id)

    def set_published(self, files: Iterable[IndexedFile]) -> None:
        """Replace shared files by the same ones with other times of publication, as one change of the table."""
        files = list(files)
        self.files.update((file.name, file) for file in files)
        self._update_table(key_of(file) for file in files)

    def add_part(self, part: Part) -> None:
        """Add a part; it has a row once it holds a chunk."""
        self.parts[part.key] = part
        self._parts_by_content.setdefault(part.target.content_id, []).append(part)
        self._update_table([part.key])

    def chunk_held(self, part: Part) -> None:
        """Note that a part holds one more chunk."""
        if part.held_count == 1:
            self._update_table([part.key])
        self._followers.notify(part.target.content_id)

    def chunks_dropped(self, part: Part) -> None:
        """Note that a part holds fewer chunks; without any it has no row."""
        self._update_table([part.key])

    def _drop_part(self, part: Part) -> None:
        if self.parts.get(part.key) is not part:
            return
        del self.parts[part.key]
        others = self._parts_by_content[part.target.content_id]
        others.remove(part)
        if not others:
            del self._parts_by_content[part.target.content_id]

    def _add(self, file: IndexedFile) -> None:
        self.files[file.name] = file
        self._names.add(file.content_id, file.name)
        self._folders.update(folders_of(file.path))
        self.shared_bytes += file.fingerprint.size_bytes

    def _remove(self, name: Name) -> list[IndexedFile]:
        """The file that was there, if any."""
        file = self.files.pop(name, None)
        if file is None:
            return []
        self._names.discard(file.content_id, name)
        for folder in folders_of(file.path):
            self._folders[folder] -= 1
            if not self._folders[folder]:
                del self._folders[folder]
        self.shared_bytes -= file.fingerprint.size_bytes
        return [file]

    def _update_table(self, keys: Iterable[RowKey]) -> None:
        put: list[FileRow] = []
        removed: list[RowKey] = []
        for key in keys:
            before, row = self.table.get(key), self._row(key)
            if row is None:
                removed += [key] if before is not None else []
            elif row != before:
                put.append(row)
        if put or removed:
            self.table.apply(RowsChanged(tuple(put), tuple(removed)))

    def _row(self, key: RowKey) -> FileRow | None:
        """The row of the complete file, else of the part."""
        file = self.files.get(key.name)
        if file is not None and file.content_id == key.content_id:
            return row_of(file)
        part = self.parts.get(key)
        if part is None or part.held_count == 0:
            return None
        before = self.table.get(key)
        if before is not None and before.state is HoldingState.PARTIAL:
            return before
        target, attributes = part.target, part.target.attributes
        modified_ns = int(self._clock.wall() * 1e9) if attributes.modified_ns is None else attributes.modified_ns
        return FileRow(
            key,
            part.manifest.size_bytes,
            modified_ns,
            target.published_ns,
            HoldingState.PARTIAL,
            executable=attributes.executable,
            tag=target.tag,
        )


def folders_of(path: str) -> Iterator[str]:
    """The folders above a path: `a/b` and `a` of `a/b/c`."""
    while path := path.rpartition("/")[0]:
        yield path


def key_of(file: IndexedFile) -> RowKey:
    """The row's key."""
    return RowKey(file.name, file.content_id)


def row_of(file: IndexedFile) -> FileRow:
    """The row of a complete file."""
    fingerprint = file.fingerprint
    return FileRow(
        key_of(file),
        fingerprint.size_bytes,
        fingerprint.modified_ns,
        file.published_ns,
        executable=fingerprint.executable,
        tag=file.tag,
    )
