"""Parts of a process that has no shared folder: each becomes a file at a path of the caller's choice."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from minga_core.errors import NameTakenError, StorageError
from minga_core.records import FileRow
from minga_engine.parts.disk import DiskPool, storage_errors
from minga_engine.parts.files import PARTS_FOLDER, Fingerprint, move_into_place
from minga_engine.parts.part import Part
from minga_engine.parts.part_files import PartTarget, delete_stale

OPEN_TRIES = 5
"""Attempts to open a part while other processes remove the same parts folder because theirs have ended."""


@dataclass(frozen=True, slots=True)
class _PathOwner:
    """Moves parts to one path, and removes the parts folder once it is empty. Implements PartOwner."""

    final: Path
    folder: Path
    pool: DiskPool

    async def finish(self, part: Part, fingerprint: Fingerprint) -> FileRow:
        await self.pool.run(_put_in_place, part.files.data_path, self.final, part.overwrite)
        return FileRow(
            part.key,
            part.manifest.size_bytes,
            fingerprint.modified_ns,
            part.target.published_ns,
            executable=fingerprint.executable,
            tag=part.target.tag,
        )

    def chunk_held(self, part: Part) -> None:
        return

    def chunks_dropped(self, part: Part) -> None:
        return

    async def released(self, part: Part, *, kept: bool) -> None:
        part.shut()
        if not kept:
            # Not empty: other parts are there.
            with suppress(OSError):
                await self.pool.run(self.folder.rmdir)


async def open_part(
    final: Path, target: PartTarget, pool: DiskPool, *, overwrite: bool, folder: Path | None = None
) -> Part:
    """A part that becomes the file `final`; resumes an earlier attempt.

    folder: where the part is kept meanwhile, on the same file system, and removed once it is empty; hidden beside
    `final` unless given. What others have left there and nobody resumed for a week is deleted. Raises NameTakenError,
    AlreadyRunningError, NoSpaceError, StorageError.
    """
    folder = folder or final.parent / PARTS_FOLDER
    if not overwrite and await pool.run(_exists, final):
        raise NameTakenError(f"{final} is there already with another content", hint="--overwrite replaces it")
    await pool.run(delete_stale, folder)
    owner = _PathOwner(final, folder, pool)
    for _ in range(OPEN_TRIES - 1):
        try:
            return await _begin(Part(folder, target, pool, owner), overwrite=overwrite)
        except StorageError as error:
            # A part that has just ended removed the folder between our making it and using it.
            if not isinstance(error.__cause__, FileNotFoundError | FileExistsError):
                raise
    return await _begin(Part(folder, target, pool, owner), overwrite=overwrite)


async def _begin(part: Part, *, overwrite: bool) -> Part:
    try:
        await part.begin(overwrite=overwrite)
    except BaseException:
        await part.close()
        part.shut()
        raise
    return part


def _exists(final: Path) -> bool:
    return final.exists() or final.is_symlink()


def _put_in_place(data: Path, final: Path, overwrite: bool) -> None:
    with storage_errors(f"cannot put {final} in place"):
        final.parent.mkdir(parents=True, exist_ok=True)
        move_into_place(data, final, overwrite=overwrite)
