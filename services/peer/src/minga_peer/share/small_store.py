"""Small contents, those of one chunk: many at once read for others, and many at once put in place.

They come complete or not at all, so they need no part (`engine/parts/placing.py`). This is the fast path of the common
case: a file system without O_TMPFILE, a name that is taken and every error leave the file to `Part`.
"""

import logging
import os
from collections.abc import AsyncGenerator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from minga_core.batching import by_size
from minga_core.errors import StorageError
from minga_core.ids import ContentId
from minga_core.names import Name
from minga_core.records import Published
from minga_engine.parts.disk import uninterrupted
from minga_engine.parts.files import Fingerprint, open_folder
from minga_engine.parts.placing import MAX_SMALL_BYTES, SmallFile, place_all
from minga_engine.progress import SmallDone
from minga_peer.share.indexed_file import IndexedFile
from minga_peer.share.shared_files import SharedFiles
from minga_peer.share.shared_folder import SharedFolder
from minga_peer.share.verifying import Verifier
from minga_runtime.logs import log_event

if TYPE_CHECKING:
    from minga_engine.transfer.locating import Located

log = logging.getLogger(__name__)


class SmallFiles:
    """The small files of a store. Implements SmallDestination. Only for the event loop's thread."""

    def __init__(self, folder: SharedFolder, shared: SharedFiles, verifier: Verifier, parts: Path) -> None:
        """parts: a folder of the same file system that is not watched."""
        self._verifier = verifier
        self._parts = parts
        self._folder = folder
        self._inventory = folder.inventory
        self._shared = shared

    async def read(
        self, content_ids: Sequence[ContentId], group_bytes: int
    ) -> AsyncGenerator[list[tuple[int, bytes]], None]:
        """Those of the contents that are here complete and small, each with its place in `content_ids`.

        In groups of at most `group_bytes`, or one file alone. A file that cannot be read, or is not what was hashed any
        more, is left out and hashed again.
        """
        held = [(place, file) for place, one in enumerate(content_ids) if (file := self._inventory.file_with(one))]
        small = [(place, file) for place, file in held if file.size_bytes <= MAX_SMALL_BYTES]
        for _, file in small:
            self._inventory.table.requested.note(file.content_id)
        for group in by_size(small, lambda one: one[1].size_bytes, group_bytes):
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
                path = f"{self._folder.root.path}/{file.path}"
                present.append(SmallDone(one.name, one.content_id, file.size_bytes, path, None))
        return present, missing

    async def store(self, files: Sequence[SmallFile]) -> list[str | None]:
        """Put files in place and share them: where each is, or None when it was not written.

        None: the name is taken by anything at all, there is no room, or the disk refuses; then `begin_part` raises the
        reason. Not interrupted once it has begun.
        """
        await self._folder.disk.run(self._folder.space.measure)
        accepted = self._accept(files)
        reserved = sum(len(file.content.data) for file in accepted)
        self._folder.space.reserved_bytes += reserved
        try:
            shared = await uninterrupted(self._store(accepted)) if accepted else {}
        finally:
            self._folder.space.reserved_bytes -= reserved
        root = self._folder.root.path
        return [f"{root}/{file.name}" if shared.get(file.name) == file.content.content_id else None for file in files]

    def _accept(self, files: Sequence[SmallFile]) -> list[SmallFile]:
        """Those that may be put in place: their names are free as far as is known, they have no part, they fit."""
        free_bytes = self._folder.space.unused_bytes
        accepted: dict[Name, SmallFile] = {}
        for file in files:
            known = file.name in accepted or file.name in self._inventory.files
            known = known or bool(self._inventory.parts and file.key in self._inventory.parts)
            known = known or self._folder.root.hidden.file(file.name)
            size_bytes = len(file.content.data)
            if not known and size_bytes <= free_bytes:
                accepted[file.name] = file
                free_bytes -= size_bytes
        return list(accepted.values())

    async def _store(self, files: list[SmallFile]) -> dict[Name, ContentId]:
        """Those that are in place and shared."""
        with self._shared.placing(*(file.name for file in files)):
            try:
                await self._shared.intend({file.key: Published(file.published_ns, file.tag) for file in files})
            except StorageError:
                return {}
            placed = await self._folder.disk.run(self._place, files)
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
        return {file.name: file.content.content_id for file, _ in placed}

    def _place(self, files: Sequence[SmallFile]) -> list[tuple[SmallFile, Fingerprint]]:
        """Put files in place; those for which it went well, each with its fingerprint then."""
        places = [file.name.rpartition("/") for file in files]
        try:
            # Not in the folders that are watched: there each write to a file without a name is an event.
            with open_folder(self._parts) as nameless:
                found = place_all(
                    [(folder, base, file) for (folder, _, base), file in zip(places, files, strict=True)],
                    lambda folder: self._folder.root.folder(folder, make=True),
                    nameless,
                )
        except OSError as error:
            log_event(log, logging.WARNING, "small_files_not_synced", count=len(files), error=error)
            return []
        return [(file, fingerprint) for file, fingerprint in zip(files, found, strict=True) if fingerprint is not None]


def _read(folder: int, base: str, fingerprint: Fingerprint) -> bytes | None:
    """The bytes of a file that afterwards is what it was when it was hashed, and so was before; else None. Raises
    OSError."""
    descriptor = os.open(base, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=folder)
    try:
        size_bytes = fingerprint.size_bytes
        data = os.pread(descriptor, size_bytes, 0)
        same = len(data) == size_bytes and Fingerprint.of(os.fstat(descriptor)) == fingerprint
        return data if same else None
    finally:
        os.close(descriptor)
