"""Small contents, those of one chunk: many at once read for others, and many at once given their names.

They come whole or not at all, so they need no part: each is written to a file without a name (O_TMPFILE), its data are
synced, and only then it is linked to its name, which the kernel does in one step and never over something else. What
`kill -9` leaves is whole files, or nothing. A file system that cannot do this leaves the file to `Part`, as does
anything else that is not plain: this is the quick way for the usual case, and never the only one.
"""

import os
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack

from minga_core.ids import ContentId
from minga_core.names import Name
from minga_core.records import FileRow, RowKey
from minga_engine.parts.disk import DiskPool, uninterrupted
from minga_engine.parts.files import Stamp
from minga_engine.parts.placing import MAX_SMALL_BYTES, SmallFile, place_all, write_all
from minga_peer.share.availability import Availability
from minga_peer.share.capacity import Capacity
from minga_peer.share.contents import Catalog, row_of
from minga_peer.share.index import IndexedFile
from minga_peer.share.manifests import ManifestCache
from minga_peer.share.partial_downloads import Shelf
from minga_peer.share.root import Root
from minga_peer.share.sharing import Sharing

READ_BYTES = 512 * 1024
"""Read at once for others, at most: what fits one message."""


class SmallFiles:
    """The small files of a store. Only for the event loop's thread."""

    def __init__(
        self,
        root: Root,
        disk: DiskPool,
        catalog: Catalog,
        sharing: Sharing,
        shelf: Shelf,
        capacity: Capacity,
        manifests: ManifestCache,
        availability: Availability,
        free_bytes: Callable[[], int],
    ) -> None:
        self._root = root
        self._disk = disk
        self._catalog = catalog
        self._sharing = sharing
        self._shelf = shelf
        self._capacity = capacity
        self._manifests = manifests
        self._availability = availability
        self._free_bytes = free_bytes
        self.unwritten_bytes = 0
        """Let in, and not shared yet."""

    async def read(
        self, content_ids: Sequence[ContentId], group_bytes: int = READ_BYTES
    ) -> AsyncGenerator[list[tuple[int, bytes]], None]:
        """Those of the contents that are here whole and small, each with its place in `content_ids`; in groups of at
        most `group_bytes`, or one alone. What cannot be read, or is not what was hashed any more, is left out, and
        hashed again."""
        held = [(place, file) for place, one in enumerate(content_ids) if (file := self._catalog.holding(one))]
        small = [(place, file) for place, file in held if file.stamp.size_bytes <= MAX_SMALL_BYTES]
        for group in _by_size(small, group_bytes):
            found = await self._disk.run(self._read_all, [file for _, file in group])
            for (_, file), data in zip(group, found, strict=True):
                if data is None:
                    self._sharing.look_again(file)
            yield [(place, data) for (place, _), data in zip(group, found, strict=True) if data is not None]

    def _read_all(self, files: Sequence[IndexedFile]) -> list[bytes | None]:
        found: list[bytes | None] = []
        with ExitStack() as stack:
            folders: dict[str, int] = {}
            for file in files:
                folder, _, base = file.path.rpartition("/")
                try:
                    if folder not in folders:
                        folders[folder] = stack.enter_context(self._root.folder(folder))
                    found.append(_read(folders[folder], base, file.stamp))
                except OSError:
                    found.append(None)
        return found

    async def store(self, files: Sequence[SmallFile]) -> list[FileRow | None]:
        """Puts files in place and shares them, as far as they go without trouble: the row of each, or None.

        None: the name is taken by anything at all, there is no room for it, or the disk does not let it be written
        this way. Then nothing was written of it; `begin_part` tells what is wrong. Not interrupted once it has begun.
        """
        await self._disk.run(self._capacity.measure)
        chosen = self._let_in(files)
        reserved = sum(len(file.content.data) for file in chosen)
        self.unwritten_bytes += reserved
        try:
            rows = await uninterrupted(self._store(chosen)) if chosen else {}
        finally:
            self.unwritten_bytes -= reserved
        return [rows.get(file.key) for file in files]

    def _let_in(self, files: Sequence[SmallFile]) -> list[SmallFile]:
        """Those that may be put in place: the names are free as far as is known, no part of them is here, they fit."""
        free_bytes = self._free_bytes()
        chosen: dict[Name, SmallFile] = {}
        for file in files:
            known = file.name in chosen or file.name in self._catalog.files or self._shelf.get(file.key) is not None
            size_bytes = len(file.content.data)
            if not known and size_bytes <= free_bytes:
                chosen[file.name] = file
                free_bytes -= size_bytes
        return list(chosen.values())

    async def _store(self, files: list[SmallFile]) -> dict[RowKey, FileRow]:
        with ExitStack() as stack:
            for file in files:
                stack.enter_context(self._sharing.placing(file.name))
            stamps = await place_all(files, lambda file: file.name.rpartition("/")[0], self._place, self._disk)
            placed = [
                (IndexedFile(file.name, file.name, stamp, file.content.content_id, file.published_ns), file)
                for file, stamp in stamps
            ]
            if placed:
                await self._sharing.share_placed([(entry, file.content.manifest) for entry, file in placed])
        for _, file in placed:
            self._manifests.put(file.content.content_id, file.content.manifest)
            self._availability.changed(file.content.content_id)
        return {file.key: row_of(entry) for entry, file in placed}

    def _place(self, folder: str, files: Sequence[SmallFile]) -> list[Stamp | None]:
        try:
            with self._root.folder(folder, make=True) as parent:
                return write_all(parent, [(file.name.rpartition("/")[2], file.content.data) for file in files])
        except OSError:
            return [None] * len(files)


def _read(folder: int, base: str, stamp: Stamp) -> bytes | None:
    """The bytes of a file that is, before and after, what it was when it was hashed; else None. Raises OSError."""
    descriptor = os.open(base, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=folder)
    try:
        if Stamp.of(os.fstat(descriptor)) != stamp:
            return None
        data = os.pread(descriptor, stamp.size_bytes, 0)
        same = len(data) == stamp.size_bytes and Stamp.of(os.fstat(descriptor)) == stamp
        return data if same else None
    finally:
        os.close(descriptor)


def _by_size(files: Iterable[tuple[int, IndexedFile]], most_bytes: int) -> Iterator[list[tuple[int, IndexedFile]]]:
    """Groups of at most so many bytes, or one file alone."""
    group: list[tuple[int, IndexedFile]] = []
    size_bytes = 0
    for place, file in files:
        if group and size_bytes + file.stamp.size_bytes > most_bytes:
            yield group
            group, size_bytes = [], 0
        group.append((place, file))
        size_bytes += file.stamp.size_bytes
    if group:
        yield group
