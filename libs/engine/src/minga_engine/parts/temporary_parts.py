"""Parts that are read and never become files: where a process without a shared folder keeps what it reads."""

import asyncio
import os
import shutil
import tempfile
import weakref
from collections.abc import AsyncGenerator
from contextlib import AbstractContextManager, asynccontextmanager
from pathlib import Path

from minga_core.chunks import ChunkSet
from minga_core.errors import AlreadyRunningError, ContentNotHeldError, NameTakenError
from minga_core.ids import ContentId
from minga_core.names import Name
from minga_core.records import FileRow
from minga_engine.parts.disk import DiskPool, storage_errors
from minga_engine.parts.files import Fingerprint, OpenChunk
from minga_engine.parts.followers import Followers
from minga_engine.parts.part import Part
from minga_engine.parts.part_files import PartTarget


class TemporaryParts:
    """Parts in a folder of this process, made when the first is begun; `aclose` deletes it, or the end of the process.

    parent: the temporary folder of the system unless given. Implements Destination, Contents and PartOwner. Only for
    the event loop's thread.
    """

    def __init__(self, pool: DiskPool, parent: Path | None = None) -> None:
        self._pool = pool
        self._parent = parent
        self._folder: Path | None = None
        self._deletion: weakref.finalize[..., TemporaryParts] | None = None
        self._parts: dict[ContentId, Part] = {}
        self._followers = Followers()

    async def aclose(self) -> None:
        """Delete all of it. What downloads into it must have ended."""
        if self._deletion is not None:
            await self._pool.run(self._deletion)

    # Contents.

    def held(self, content_id: ContentId) -> ChunkSet | None:
        """See Contents."""
        part = self._parts.get(content_id)
        return None if part is None else part.held

    def following(self, content_id: ContentId) -> AbstractContextManager[asyncio.Event]:
        """See Contents."""
        return self._followers.following(content_id)

    @asynccontextmanager
    async def open_chunk(self, content_id: ContentId, index: int) -> AsyncGenerator[OpenChunk, None]:
        """See Contents."""
        part = self._parts.get(content_id)
        if part is None:
            raise ContentNotHeldError(f"{content_id.short} is not held here")
        with part.open_chunk(index) as chunk:
            yield chunk

    # Destination.

    async def present(self, name: Name, content_id: ContentId) -> Path | None:
        """Nothing is ever in place."""
        return None

    async def begin_part(self, target: PartTarget, *, overwrite: bool, reading: bool) -> Part:
        """A new part. Raises AlreadyRunningError, NoSpaceError, StorageError."""
        if self._folder is None:
            with storage_errors("cannot make a temporary folder"):
                self._folder = Path(await self._pool.run(tempfile.mkdtemp, "", "minga-read-", self._parent))
            self._deletion = weakref.finalize(self, _delete, self._folder, os.getpid())
        if target.content_id in self._parts:
            raise AlreadyRunningError(f"{target.name} is being read already")
        part = self._parts[target.content_id] = Part(self._folder, target, self._pool, self)
        try:
            await part.begin(overwrite=False)
        except BaseException:
            await part.discard()
            raise
        return part

    def path_of(self, name: Name) -> Path:
        """Nothing is ever in place; see Destination."""
        raise NotImplementedError(name)

    # PartOwner.

    async def finish(self, part: Part, fingerprint: Fingerprint) -> FileRow:
        """Nothing is ever put in place."""
        raise NameTakenError(f"{part.target.name} has no place on this machine")

    def chunk_held(self, part: Part) -> None:
        """See PartOwner."""
        self._followers.notify(part.target.content_id)

    def chunks_dropped(self, part: Part) -> None:
        """See PartOwner."""

    async def released(self, part: Part, *, kept: bool) -> None:
        """See PartOwner: also one that was kept is of no use to a later process."""
        part.shut()
        if self._parts.get(part.target.content_id) is part:
            del self._parts[part.target.content_id]


def _delete(folder: Path, process_id: int) -> None:
    """Not in a forked child, which ends before its parent."""
    if os.getpid() == process_id:
        shutil.rmtree(folder, ignore_errors=True)
