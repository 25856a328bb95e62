"""The index of digests: path and fingerprint → content, so that a restart hashes nothing again.

It also keeps what nobody else knows: when files were published. So what could not be written is not forgotten: it is
written with the next change, or by `write_again`.
"""

import asyncio
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from minga_core.errors import MingaError, NoSpaceError, StorageError
from minga_core.ids import ContentId
from minga_core.manifest import Manifest
from minga_core.names import Name
from minga_core.records import Published, RowKey
from minga_engine.parts.disk import DiskPool
from minga_engine.parts.files import Fingerprint
from minga_peer.share.conditions import Conditions, Kind
from minga_peer.share.index_file import IndexFile
from minga_peer.share.indexed_file import IndexedFile
from minga_peer.share.manifest_cache import ManifestCache
from minga_peer.share.unwritten import Change, Unwritten

SET_ASIDE = "set aside"
"""Key of the condition that lasts until a damaged index has everything again."""
IN_MEMORY = "in memory"
"""Key of the condition that lasts until the disk lets the index be written."""
FORGOTTEN = "forgotten"
"""Key of the condition that lasts until a restart, when there was too much to be written later."""


class Index:
    """The index. Its coroutines end only when their work in the index's thread has."""

    def __init__(self, path: Path, conditions: Conditions) -> None:
        self._path = path
        self._conditions = conditions
        self._file = IndexFile(path)
        self._thread = DiskPool(1, "index")
        self._cache = ManifestCache()
        self._unwritten = Unwritten()
        self._writing = asyncio.Lock()
        self.complete = False
        """Whether all files that were there when the index was made have been in it: others are new then."""
        self._complete_written = False
        self.intents: dict[RowKey, Published] = {}
        """Files that are being put in place, or were when it failed or an earlier run ended, with their times of
        publication."""
        self._earlier: set[RowKey] = set()
        """Those of an earlier run."""

    async def open(self) -> dict[Name, IndexedFile]:
        """Open or make the index; the files it knows. A damaged one is set aside and made anew.

        Where the disk does not let it be opened, being full or read-only, it is kept in memory.
        """
        known = await self._thread.run(self._file.open)
        self.complete = self._complete_written = self._file.complete
        self.intents = self._file.intents
        self._earlier = set(self.intents)
        if self._file.set_aside_for:
            self._conditions.set(Kind.INDEX, f"{self._path} was damaged: {self._file.set_aside_for}", SET_ASIDE)
        if self.in_memory:
            why = f"{self._path} cannot be opened, its changes are in memory: {self._file.in_memory_for}"
            self._conditions.set(Kind.INDEX, why, IN_MEMORY)
        return known

    @property
    def in_memory(self) -> bool:
        """Whether the disk did not let it be opened."""
        return bool(self._file.in_memory_for)

    @property
    def is_behind(self) -> bool:
        """Whether the disk lacks something of it."""
        return self.in_memory or bool(self._unwritten) or self.complete is not self._complete_written

    def made_anew(self) -> None:
        """Note that all files are in the index (again)."""
        self._conditions.clear(Kind.INDEX, SET_ASIDE)

    async def write(
        self, put: Sequence[tuple[IndexedFile, Manifest]] = (), remove: Iterable[Name] = (), *, cached: bool = False
    ) -> None:
        """Add files and remove names. cached: keep manifests of more than one chunk in memory too.

        An error is a condition, and what could not be written is written later.
        """
        self._unwritten.remove(remove)
        self._unwritten.put(put)
        if self.intents:
            names = {file.name for file, _ in put}
            self.intents = {key: time for key, time in self.intents.items() if key.name not in names}
        written = await self._write_all()
        for file, manifest in put:
            # What is not written is served from the cache. Small files are fetched without their manifests.
            if not written or (cached and manifest.geometry.chunk_count > 1):
                self._cache.put(file.content_id, manifest)

    async def set_published(self, files: Sequence[IndexedFile]) -> None:
        """Keep when files were published; those that are not in the index as they are stay out. Errors: see `write`."""
        self._unwritten.publish(files)
        await self._write_all()

    async def set_complete(self) -> None:
        """Note that all files that were there when the index was made have been in it. Errors: see `write`."""
        self.complete = True
        await self._write_all()

    async def write_again(self) -> None:
        """Write what could not be written, and an index that is in memory to the disk, if that is possible by now."""
        if self.in_memory and await self._thread.run(self._return_to_disk):
            self._conditions.clear(Kind.INDEX, IN_MEMORY)
        await self._write_all()

    async def intend(self, intents: Mapping[RowKey, Published]) -> None:
        """Keep which files are about to be put in place, with their times of publication, until they are written.

        Without an entry such a file would be taken for one that its user has made. Raises NoSpaceError, StorageError.
        """
        if self.in_memory:
            raise StorageError(f"{self._path} cannot be written: {self._file.in_memory_for}")
        self._earlier.difference_update(intents)
        try:
            await self._thread.run(self._file.intend, intents)
        except sqlite3.Error as error:
            is_full = getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_FULL
            why, hint = f"{self._path} cannot be written: {error}", "make room on the disk and try again"
            raise (NoSpaceError if is_full else StorageError)(why, hint=hint) from error
        self.intents.update(intents)

    async def forget_intents(self) -> None:
        """Forget what an earlier run has not put in place after all. An error leaves that to the next start."""
        if self._earlier and not self.is_behind:
            keys = [key for key in self._earlier if self.intents.pop(key, None) is not None]
            self._earlier.clear()
            await self._thread.run(self._forget_intents, keys)

    async def manifest(self, file: IndexedFile) -> Manifest | None:
        """The manifest of a file's content; None when it is not known or fails its digest."""
        manifest = self._cache.get(file.content_id)
        if manifest is None:
            manifest = await self._thread.run(self._file.manifest, file)
            if manifest is not None:
                self._cache.put(file.content_id, manifest)
        return manifest

    async def names_after(self, name: str, limit: int) -> list[Name]:
        """The next names of the index in order of their bytes, at most `limit`; none at the end, or on an error."""
        return await self._thread.run(self._file.names_after, name, limit)

    async def with_fingerprints(
        self, fingerprints: Sequence[Fingerprint]
    ) -> list[tuple[Name, Fingerprint, ContentId, Manifest]]:
        """What the index has, under whatever names, for files of those fingerprints; nothing on an error."""
        return await self._thread.run(self._file.with_fingerprints, fingerprints)

    async def aclose(self) -> None:
        """Close the file and end the thread. Idempotent."""
        if not self.in_memory:
            await self._write_all()
        await self._thread.run(self._file.close)
        await asyncio.to_thread(self._thread.close)

    async def _write_all(self) -> bool:
        """Write all that is unwritten, a batch at a time; false when the disk refuses."""
        async with self._writing:
            problem = ""
            for _ in range(max(1, self._unwritten.batch_count)):
                problem = await self._write_batch()
                if problem:
                    break
        self._note(problem)
        return not problem

    async def _write_batch(self) -> str:
        """What went wrong; empty when nothing did."""
        batch = self._unwritten.batch()
        # After all else: a complete index that lacks files would take them for new.
        complete = self.complete and not self._complete_written and len(batch) == len(self._unwritten)
        if not batch and not complete:
            return ""
        problem = await self._thread.run(self._write, batch, complete)
        if not problem:
            self._unwritten.written(batch)
            self._complete_written = self._complete_written or complete
        return problem

    def _note(self, problem: str) -> None:
        if problem:
            self._conditions.set(Kind.INDEX, f"{self._path} cannot be written: {problem}")
        elif not self._unwritten:
            self._conditions.clear(Kind.INDEX)
        if self._unwritten.forgotten_count:
            why = f"{self._unwritten.forgotten_count:,} files are hashed again after a restart"
            self._conditions.set(Kind.INDEX, why, FORGOTTEN)

    def _write(self, batch: Sequence[Change], complete: bool) -> str:
        try:
            self._file.write(batch, complete=complete)
        except sqlite3.Error as error:
            return str(error)
        return ""

    def _forget_intents(self, keys: Sequence[RowKey]) -> None:
        with suppress(sqlite3.Error):
            self._file.forget_intents(keys)

    def _return_to_disk(self) -> bool:
        try:
            self._file.return_to_disk()
        except (sqlite3.Error, MingaError):
            return False
        return True
