"""What is here: shared files by name and content, parts of downloads, and the file table that follows from both."""

import asyncio
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace

from minga_core.chunks import ChunkSet, Geometry
from minga_core.clock import Clock
from minga_core.ids import ContentId
from minga_core.names import Name
from minga_core.records import FileRow, HoldingState, RowKey
from minga_engine.parts.followers import Followers
from minga_engine.parts.part import Part
from minga_engine.parts.provisional import ProvisionalPart
from minga_peer.share.content_names import ContentNames
from minga_peer.share.indexed_file import IndexedFile
from minga_peer.share.stand_ins import StandIns
from minga_peer.share.table import FileTable, RowsChanged


class Inventory:
    """Every change goes through here, updates `table` in one step and wakes the followers of its contents.

    Only for the event loop's thread. on_file_gone: called with each file that is no longer shared as it was.
    """

    def __init__(self, clock: Clock, on_file_gone: Callable[[IndexedFile], None] = lambda file: None) -> None:
        self._clock = clock
        self._on_file_gone = on_file_gone
        self.files: dict[Name, IndexedFile] = {}
        """Shared files. Changed here alone."""
        self.unshared: dict[Name, IndexedFile] = {}
        """Files whose digests are known, and that are not shared now: they are gone, or are to be hashed again."""
        self.parts: dict[RowKey, Part] = {}
        self.table = FileTable(files=self.files)
        self.shared_bytes = 0
        self._names = ContentNames()
        self._parts_by_content: dict[ContentId, list[Part]] = {}
        self._folders: Counter[str] = Counter()
        self._followers = Followers()
        self.stand_ins = StandIns()
        """Provisional ids."""

    # Reading.

    def file_with(self, content_id: ContentId) -> IndexedFile | None:
        """Some shared file with that content."""
        name = self._names.any(self.stand_ins.meant(content_id))
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
        parts = self._parts_by_content.get(self.stand_ins.meant(content_id))
        if parts is None or len(parts) == 1:
            return parts[0] if parts else None
        return max(parts, key=lambda part: part.held_count)

    def held(self, content_id: ContentId) -> ChunkSet | None:
        """The chunks of a content that can be served now (a copy); None when it is not held at all."""
        if (file := self.file_with(content_id)) is not None:
            return ChunkSet.full(Geometry(file.size_bytes).chunk_count)
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
        put, drop_parts = list(put), list(drop_parts)
        names = dict.fromkeys([*remove, *(file.name for file in put)])
        gone = [file for name in names if (file := self.files.get(name)) is not None]
        before = self._rows([*(part.key for part in drop_parts), *(file.key for file in [*put, *gone])])
        for part in drop_parts:
            self._drop_part(part)
        for file in gone:
            self._remove(file)
        for file in put:
            self._add(file)
        self._update_table(before)
        for file in gone:
            self._on_file_gone(file)
        if self._followers.any:
            for key in before:
                self._notify(key.content_id)

    def set_published(self, files: Iterable[IndexedFile]) -> None:
        """Replace shared files by the same ones with other times of publication, as one change of the table."""
        files = list(files)
        before = self._rows(file.key for file in files)
        self.files.update((file.name, file) for file in files)
        self._update_table(before)

    def add_part(self, part: Part) -> None:
        """Add a part; it has a row once it holds a chunk."""
        self.parts[part.key] = part
        self._parts_by_content.setdefault(part.target.content_id, []).append(part)
        self._update_table(self._rows([part.key]))

    def chunk_held(self, part: Part) -> None:
        """Note that a part holds one more chunk."""
        if part.held_count == 1:
            self._update_table(self._rows([part.key]))
        self._notify(part.target.content_id)

    def chunks_dropped(self, part: Part) -> None:
        """Note that a part holds fewer chunks; without any it has no row."""
        self._update_table(self._rows([part.key]))

    def become(self, part: ProvisionalPart) -> None:
        """Note which content a part is that has all its digests; its provisional id stands for it from now on.

        Raises InvalidManifestError while digests are missing.
        """
        manifest, provisional = part.final_manifest(), part.target.content_id
        self._drop_part(part)
        part.files.target = replace(part.target, manifest=manifest, content_id=manifest.content_id)
        part.listed = True
        self.stand_ins.add(provisional, part.target.content_id)
        self.add_part(part)
        self._notify(part.target.content_id)

    def _notify(self, content_id: ContentId) -> None:
        for each in (content_id, *self.stand_ins.of(content_id)):
            self._followers.notify(each)

    def _drop_part(self, part: Part) -> None:
        if self.parts.get(part.key) is not part:
            return
        del self.parts[part.key]
        others = self._parts_by_content[part.target.content_id]
        others.remove(part)
        if not others:
            del self._parts_by_content[part.target.content_id]

    def _add(self, file: IndexedFile) -> None:
        if (before := self.files.get(file.name)) is not None:
            self._remove(before)
        self.unshared.pop(file.name, None)
        self.files[file.name] = file
        self._names.add(file.content_id, file.name)
        for folder in folders_of(file.path):
            self._folders[folder] += 1
        self.shared_bytes += file.size_bytes

    def _remove(self, file: IndexedFile) -> None:
        del self.files[file.name]
        self.unshared[file.name] = file
        self._names.discard(file.content_id, file.name)
        for folder in folders_of(file.path):
            self._folders[folder] -= 1
            if not self._folders[folder]:
                del self._folders[folder]
        self.shared_bytes -= file.size_bytes

    def _rows(self, keys: Iterable[RowKey]) -> dict[RowKey, FileRow | None]:
        """The rows that the table has under those keys."""
        return {key: self.table.get(key) for key in keys}

    def _update_table(self, rows: Mapping[RowKey, FileRow | None]) -> None:
        """Change rows that are not what they were any more. rows: what the table had before this change."""
        put: list[FileRow] = []
        removed: list[RowKey] = []
        for key, before in rows.items():
            row = self._row(key)
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
            return file.row
        part = self.parts.get(key)
        if part is None or part.held_count == 0 or not part.listed:
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
