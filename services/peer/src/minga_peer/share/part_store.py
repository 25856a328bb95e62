"""Parts in the shared folder: begun, resumed, put in place and shared; those that nobody resumes expire."""

import asyncio
import logging
from collections.abc import Iterable
from pathlib import Path

from minga_core.errors import (
    AlreadyRunningError,
    ChunkCorruptError,
    ContentChangedError,
    MingaError,
    NameTakenError,
    NoSpaceError,
    StorageError,
)
from minga_core.ids import ContentId
from minga_core.names import Name
from minga_core.records import PUBLISH, FileRow, Published, RowKey
from minga_core.units import format_bytes
from minga_engine.parts.disk import storage_errors
from minga_engine.parts.files import Fingerprint
from minga_engine.parts.part import Part
from minga_engine.parts.part_files import PART_LIFE_SECONDS, PartFiles, PartTarget, decode_meta
from minga_engine.parts.provisional import ProvisionalPart, no_digests
from minga_peer.share.indexed_file import IndexedFile
from minga_peer.share.shared_files import SharedFiles
from minga_peer.share.shared_folder import SharedFolder
from minga_runtime.logs import log_event

log = logging.getLogger(__name__)

MAX_KEPT_PARTS = 256
"""Bound of the parts that are not being written, each with an open descriptor; older ones are deleted."""
EXPIRY_CHECK_SECONDS = 3600.0


class PartStore:
    """Implements PartOwner. Only for the event loop's thread."""

    def __init__(self, folder: SharedFolder, shared: SharedFiles, path: Path) -> None:
        """path: where parts are kept, on the shared folder's file system."""
        self._folder = folder
        self._inventory = folder.inventory
        self._shared = shared
        self._path = path
        self._making_room = asyncio.Lock()

    def make_folder(self) -> None:
        """Make the parts folder. Blocking. Raises OSError, also when the shared folder is on another file system and
        not read-only."""
        device = self._made_device()
        if not self._folder.space.read_only:
            self._folder.root.check_place("", device)

    def _made_device(self) -> int:
        """The file system of the parts folder, which is made if it is missing: the shared folder may have been replaced
        or mounted anew."""
        self._path.mkdir(parents=True, exist_ok=True)
        return self._path.stat().st_dev

    async def begin(self, target: PartTarget, *, overwrite: bool, reading: bool = False) -> Part:
        """A part open for writing. Raises as `ContentStore.begin_part`."""
        if reading:
            await self._folder.disk.run(self._measure)
        else:
            await self._check_name(target, overwrite)
        part = self._claim(target)
        try:
            await self._make_room()
            # Who reads wants the first byte soon, and of a resumed part perhaps nothing but that.
            await part.begin(overwrite=overwrite, verified=not reading)
            await self._copy_local(part)
        except BaseException:
            await part.close()
            raise
        return part

    async def begin_provisional(self, name: Name, size_bytes: int, content_id: ContentId) -> ProvisionalPart:
        """A part open for writing, of a content whose digests are not known yet: see ProvisionalPart. Raises as
        `begin`."""
        target = PartTarget(name, no_digests(size_bytes), content_id, PUBLISH)
        await self._check_name(target, overwrite=True)
        self._check_room(target)
        part = ProvisionalPart(self._path, target, self._folder.disk, self)
        self._inventory.add_part(part)
        part.writing = True
        try:
            await self._make_room()
            await part.begin(overwrite=True)
        except BaseException:
            await part.close()
            raise
        return part

    async def become(self, part: ProvisionalPart) -> None:
        """Note which content a part is that has all its digests, as `Inventory.become`. What an earlier attempt left of
        the same content is deleted."""
        earlier = self._inventory.parts.get(RowKey(part.target.name, part.final_manifest().content_id))
        if earlier is not None and not earlier.writing:
            await self._delete_part(earlier)
        self._inventory.become(part)

    def _measure(self) -> None:
        with storage_errors("cannot store anything"):
            self._made_device()
            self._folder.space.measure()

    async def _check_name(self, target: PartTarget, overwrite: bool) -> None:
        present = self._inventory.files.get(target.name)
        if present is not None and present.content_id != target.content_id and not overwrite:
            raise NameTakenError(f"{target.name} is here with another content", hint="--overwrite replaces it")
        await self._folder.disk.run(self._check_place, target, overwrite)

    def _check_place(self, target: PartTarget, overwrite: bool) -> None:
        """Refuse, before a byte is fetched, what could not be put in place afterwards."""
        with storage_errors(f"cannot put {target.name} in place"):
            self._folder.root.check_place(target.name, self._made_device())
            self._folder.space.measure()
            if overwrite:
                self._folder.root.check_replaceable(target.name)
        # A file in another Unicode form has the name in the inventory alone.
        known = target.name in self._inventory.files or self._rotten(target) is not None
        if not overwrite and not known and self._folder.root.exists(target.name):
            raise NameTakenError(
                f"{target.name} is here already, and its content is not known yet",
                hint="try again once it is hashed, or replace it with --overwrite",
            )

    def _claim(self, target: PartTarget) -> Part:
        """The part of an earlier attempt, or a new one if it fits; no other caller can begin it now."""
        part = self._inventory.parts.get(RowKey(target.name, target.content_id))
        if part is not None and (part.writing or part.gone):
            raise AlreadyRunningError(f"{target.name} is being stored here already")
        self._check_room(target)
        if part is None:
            part = Part(self._path, target, self._folder.disk, self)
            self._inventory.add_part(part)
        # A download may go on with the part of an upload, and an upload with that of a download, which it publishes.
        part.files.target, part.writing = target, True
        return part

    def _check_room(self, target: PartTarget) -> None:
        size_bytes, free_bytes = target.manifest.size_bytes, self._folder.space.free_bytes
        if size_bytes > free_bytes:
            raise NoSpaceError(
                f"{target.name} has {format_bytes(size_bytes)}, but only {format_bytes(free_bytes)} are free",
                hint="make room, or raise the capacity",
            )

    async def _make_room(self) -> None:
        """Delete the idle parts that were not used for longest, as many as stand in the way of what is written."""
        async with self._making_room:
            missing_bytes = self._folder.space.missing_bytes
            if not missing_bytes:
                return
            for _, part in reversed(await self._idle_parts()):
                if missing_bytes > 0 and not part.writing:
                    missing_bytes -= part.held_bytes
                    await self._delete_part(part)
            await self._folder.disk.run(self._folder.space.measure)

    async def _copy_local(self, part: Part) -> None:
        """Fill a part from a shared file with the same content under another name, if there is one."""
        file = self._inventory.file_with(part.target.content_id)
        if file is None:
            return
        try:
            await part.copy_from(await self._folder.reader.open(file))
        except ChunkCorruptError as error:
            self._shared.refuse_damaged(file, str(error))
        except (ContentChangedError, StorageError) as error:
            # It may be the file that cannot be read; an error of writing comes again with the next chunk.
            log_event(log, logging.WARNING, "local_copy_failed", name=file.name, error=error)
            self._shared.hash_again(file)

    # PartOwner.

    async def finish(self, part: Part, fingerprint: Fingerprint) -> FileRow:
        """Move a complete part to its name and share it; the old content of that name goes in the same change."""
        target, disk = part.target, self._folder.disk
        present = self._inventory.files.get(target.name)
        if present is not None and not part.overwrite and await self._is_present(target, present):
            await disk.run(part.files.delete)
            return present.row
        rotten = self._rotten(target)
        there = present or rotten
        path = there.path if there is not None else target.name
        with self._shared.placing(path):
            published = Published(target.published_ns, target.tag)
            await self._shared.intend({part.key: published})
            with storage_errors(f"cannot put {target.name} in place"):
                placed = await disk.run(self._place, part, path, rotten)
            file = IndexedFile(target.name, path, fingerprint.moved(placed), target.content_id, *published)
            await self._shared.share_placed([(file, target.manifest)], part)
        return file.row

    def _rotten(self, target: PartTarget) -> IndexedFile | None:
        """The damaged file of that name that should have this very content: good bytes of it may replace it."""
        file = self._folder.damaged.get(target.name)
        return file if file is not None and file.content_id == target.content_id else None

    def _place(self, part: Part, path: str, rotten: IndexedFile | None) -> Fingerprint:
        """Move a part to its name. What a program has made of a rotten file meanwhile is not replaced. Blocking."""
        root = self._folder.root
        replaces = rotten is not None and root.look([path])[path] == rotten.fingerprint
        return root.place(part.files.data_path, path, overwrite=part.overwrite or replaces)

    async def _is_present(self, target: PartTarget, present: IndexedFile) -> bool:
        """Whether the content is shared already, in a file that no program has changed just now."""
        if present.content_id != target.content_id:
            return False
        looked = await self._folder.disk.run(self._folder.root.look, [present.path])
        return looked[present.path] == present.fingerprint

    def chunk_held(self, part: Part) -> None:
        """See PartOwner."""
        self._inventory.chunk_held(part)

    def chunks_dropped(self, part: Part) -> None:
        """See PartOwner."""
        self._inventory.chunks_dropped(part)

    async def released(self, part: Part, *, kept: bool) -> None:
        """See PartOwner."""
        if not kept:
            self._inventory.update(drop_parts=[part])

    # Parts of earlier runs.

    async def load(self) -> None:
        """Open the parts of earlier runs, so that they are served and can be resumed."""
        for target in await self._folder.disk.run(self._resumable):
            part = Part(self._path, target, self._folder.disk, self)
            try:
                await part.open()
                if part.held_count:
                    self._inventory.add_part(part)
                else:
                    await part.discard()
            except MingaError as error:
                log_event(log, logging.WARNING, "part_not_loaded", name=target.name, error=error)
            finally:
                if part.key not in self._inventory.parts:
                    part.shut()

    def _resumable(self) -> list[PartTarget]:
        """What earlier runs left that can be resumed; deletes what is damaged, stale or too many. Blocking."""
        try:
            paths = list(self._path.iterdir())
        except OSError as error:
            # The state folder cannot be made, or is another user's.
            log_event(log, logging.WARNING, "parts_not_loaded", path=self._path, error=error)
            return []
        found = [found for path in paths if path.suffix == ".meta" and (found := self._read(path)) is not None]
        found.sort(key=lambda each: each[1], reverse=True)
        kept = [target for target, _ in found[:MAX_KEPT_PARTS]]
        stems = {target.stem() for target in kept}
        _delete(path for path in paths if path.name.partition(".")[0] not in stems)
        return kept

    def _read(self, meta: Path) -> tuple[PartTarget, float] | None:
        """What a part is to become and when it was last used; None when there is nothing to resume."""
        try:
            target = decode_meta(meta.read_bytes())
            files = PartFiles(self._path, target)
            status, last_used = files.data_path.stat(), files.last_used()
        except FileNotFoundError:
            # It became a file, and the process died before the rest was deleted.
            return None
        except (MingaError, OSError) as error:
            log_event(log, logging.WARNING, "part_damaged", part=meta.name, error=error)
            return None
        if target.stem() != meta.stem:
            log_event(log, logging.WARNING, "part_damaged", part=meta.name, error="it is named after another content")
            return None
        if status.st_nlink > 1:
            # The process died between linking the file to its name and removing this link: it is complete and shared.
            return None
        if self._is_stale(last_used):
            log_event(log, logging.INFO, "part_expired", name=target.name)
            return None
        return target, last_used

    async def expire_regularly(self) -> None:
        """Delete parts that are not being written and have become stale or too many, until cancelled."""
        while True:
            await self._expire()
            await asyncio.sleep(EXPIRY_CHECK_SECONDS)

    async def _expire(self) -> None:
        for rank, (last_used, part) in enumerate(await self._idle_parts()):
            if not part.writing and (rank >= MAX_KEPT_PARTS or self._is_stale(last_used)):
                await self._delete_part(part)

    async def _idle_parts(self) -> list[tuple[float, Part]]:
        """Parts that are not being written, the last used first, each with that time."""
        idle = [part for part in self._inventory.parts.values() if not part.writing]
        used = [(await self._folder.disk.run(part.files.last_used), part) for part in idle]
        return sorted(used, key=lambda each: each[0], reverse=True)

    async def _delete_part(self, part: Part) -> None:
        log_event(log, logging.INFO, "part_expired", name=part.target.name)
        try:
            await part.discard()
        except StorageError as error:
            log_event(log, logging.WARNING, "part_not_deleted", part=part.target.name, error=error)

    def _is_stale(self, last_used: float) -> bool:
        return self._folder.clock.wall() - last_used > PART_LIFE_SECONDS


def _delete(paths: Iterable[Path]) -> None:
    for path in paths:
        try:
            path.unlink()
        except OSError as error:
            log_event(log, logging.WARNING, "part_not_deleted", part=path.name, error=error)
