"""Small contents, those of one chunk: many at once read for others, and many at once put in place.

They come complete or not at all, so they need no part: each is written to a file without a name (O_TMPFILE), its data
are synced, and only then it is linked to its name, which the kernel does in one step and never over another file. What
`kill -9` leaves is complete files, or nothing. This is the fast path of the common case: a file system without
O_TMPFILE, a name that is taken and every error leave the file to `Part`.
"""

import os
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from minga_core.errors import StorageError
from minga_core.ids import ContentId
from minga_core.names import Name
from minga_core.records import Published, RowKey
from minga_engine.parts.disk import uninterrupted
from minga_engine.parts.files import Fingerprint
from minga_engine.parts.placing import MAX_SMALL_BYTES, SmallFile, place_all, write_all
from minga_engine.progress import SmallDone
from minga_peer.share.indexed_file import IndexedFile
from minga_peer.share.shared_files import SharedFiles
from minga_peer.share.shared_folder import SharedFolder
from minga_peer.share.verifying import Verifier

if TYPE_CHECKING:
    from minga_engine.transfer.locating import Located

READ_BYTES = 512 * 1024
"""Bound of the bytes read at once for others: what fits one message."""


class SmallFiles:
    """The small files of a store. Implements SmallDestination. Only for the event loop's thread."""

    def __init__(self, folder: SharedFolder, shared: SharedFiles, verifier: Verifier) -> None:
        self._verifier = verifier
        self._folder = folder
        self._inventory = folder.inventory
        self._shared = shared

    async def read(
        self, content_ids: Sequence[ContentId], group_bytes: int = READ_BYTES
    ) -> AsyncGenerator[list[tuple[int, bytes]], None]:
        """Those of the contents that are here complete and small, each with its place in `content_ids`.

        In groups of at most `group_bytes`, or one file alone. A file that cannot be read, or is not what was hashed any
        more, is left out and hashed again.
        """
        held = [(place, file) for place, one in enumerate(content_ids) if (file := self._inventory.file_with(one))]
        small = [(place, file) for place, file in held if file.fingerprint.size_bytes <= MAX_SMALL_BYTES]
        for group in _by_size(small, group_bytes):
            found = await self._folder.disk.run(self._read_all, [file for _, file in group])
            for (_, file), data in zip(group, found, strict=True):
                if data is None:
                    self._shared.hash_again(file)
            yield [(place, data) for (place, _), data in zip(group, found, strict=True) if data is not None]

    def _read_all(self, files: Sequence[IndexedFile]) -> list[bytes | None]:
        found: list[bytes | None] = []
        with ExitStack() as stack:
            folders: dict[str, int] = {}
            for file in files:
                folder, _, base = file.path.rpartition("/")
                try:
                    if folder not in folders:
                        folders[folder] = stack.enter_context(self._folder.root.folder(folder))
                    found.append(_read(folders[folder], base, file.fingerprint))
                except OSError:
                    found.append(None)
        return found

    async def sort(self, located: "Sequence[Located]") -> "tuple[list[SmallDone], list[Located]]":
        """See SmallDestination; a file that is not what was hashed any more is missing."""
        shared = [
            file
            for one in located
            if (file := self._inventory.files.get(one.name)) is not None and file.content_id == one.content_id
        ]
        await self._verifier.verify_small(shared, self._folder.disk)
        present: list[SmallDone] = []
        missing: list[Located] = []
        for one in located:
            file = self._inventory.files.get(one.name)
            if file is None:
                missing.append(one)
            elif file.content_id == one.content_id:
                path = self._folder.root.path / file.path
                present.append(SmallDone(one.name, one.content_id, file.fingerprint.size_bytes, path, None))
        return present, missing

    async def store(self, files: Sequence[SmallFile]) -> list[Path | None]:
        """Put files in place and share them: where each is, or None when it was not written.

        None: the name is taken by anything at all, there is no room, or the disk refuses; then `begin_part` raises the
        reason. Not interrupted once it has begun.
        """
        await self._folder.disk.run(self._folder.space.measure)
        accepted = self._accept(files)
        reserved = sum(len(file.content.data) for file in accepted)
        self._folder.space.reserved_bytes += reserved
        try:
            shared = await uninterrupted(self._store(accepted)) if accepted else set()
        finally:
            self._folder.space.reserved_bytes -= reserved
        return [self._folder.root.path / file.name if file.key in shared else None for file in files]

    def _accept(self, files: Sequence[SmallFile]) -> list[SmallFile]:
        """Those that may be put in place: their names are free as far as is known, they have no part, they fit."""
        free_bytes = self._folder.space.unused_bytes
        accepted: dict[Name, SmallFile] = {}
        for file in files:
            known = file.name in accepted or file.name in self._inventory.files or file.key in self._inventory.parts
            known = known or self._folder.root.hidden.file(file.name)
            size_bytes = len(file.content.data)
            if not known and size_bytes <= free_bytes:
                accepted[file.name] = file
                free_bytes -= size_bytes
        return list(accepted.values())

    async def _store(self, files: list[SmallFile]) -> set[RowKey]:
        with ExitStack() as stack:
            for file in files:
                stack.enter_context(self._shared.placing(file.name))
            try:
                await self._shared.intend({file.key: Published(file.published_ns, file.tag) for file in files})
            except StorageError:
                return set()
            placed = await place_all(files, lambda file: file.name.rpartition("/")[0], self._place, self._folder.disk)
            entries = [
                (
                    IndexedFile(
                        file.name, file.name, fingerprint, file.content.content_id, file.published_ns, file.tag
                    ),
                    file.content.manifest,
                )
                for file, fingerprint in placed
            ]
            if entries:
                await self._shared.share_placed(entries)
        return {file.key for file, _ in placed}

    def _place(self, folder: str, files: Sequence[SmallFile]) -> list[Fingerprint | None]:
        try:
            with self._folder.root.folder(folder, make=True) as parent:
                return write_all(parent, [(file.name.rpartition("/")[2], file) for file in files])
        except OSError:
            return [None] * len(files)


def _read(folder: int, base: str, fingerprint: Fingerprint) -> bytes | None:
    """The bytes of a file that is, before and after, what it was when it was hashed; else None. Raises OSError."""
    descriptor = os.open(base, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=folder)
    try:
        if Fingerprint.of(os.fstat(descriptor)) != fingerprint:
            return None
        data = os.pread(descriptor, fingerprint.size_bytes, 0)
        same = len(data) == fingerprint.size_bytes and Fingerprint.of(os.fstat(descriptor)) == fingerprint
        return data if same else None
    finally:
        os.close(descriptor)


def _by_size(files: Iterable[tuple[int, IndexedFile]], max_bytes: int) -> Iterator[list[tuple[int, IndexedFile]]]:
    """Groups of at most so many bytes, or one file alone."""
    group: list[tuple[int, IndexedFile]] = []
    size_bytes = 0
    for place, file in files:
        if group and size_bytes + file.fingerprint.size_bytes > max_bytes:
            yield group
            group, size_bytes = [], 0
        group.append((place, file))
        size_bytes += file.fingerprint.size_bytes
    if group:
        yield group
