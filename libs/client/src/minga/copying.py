"""Copying files of the shared folder to targets: each whole or not at all."""

import asyncio
import os
import secrets
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from minga_core.chunks import Geometry
from minga_core.errors import ChunkCorruptError, ContentChangedError, NameTakenError
from minga_core.ids import ContentId
from minga_core.manifest import Manifest
from minga_core.names import Name
from minga_core.records import FOUND
from minga_engine.parts.disk import storage_errors
from minga_engine.parts.files import (
    Fingerprint,
    check_replaceable,
    link_nameless,
    mode_of,
    move_into_place,
    open_folder,
    set_modified,
)
from minga_engine.parts.hashing import hash_path, hash_range
from minga_engine.parts.holes import copy_range, data_ranges
from minga_engine.parts.placing import MAX_SMALL_BYTES, SmallContent, SmallFile, place_all

STEP_BYTES = 16 * 1024 * 1024
"""Copied between two checks for cancellation."""


class FileCopy(NamedTuple):
    """A small file of the shared folder that is to be copied."""

    name: Name
    content_id: ContentId
    source: str
    """A text: making a Path takes as long as all else that becomes of the file here."""
    target: Path


def copy_small(copies: Sequence[FileCopy]) -> list[bool]:
    """Copy small files to targets whose folders exist; whether each is there now, with the bytes it should have and the
    source's attributes, on the disk. Blocking.

    Replaces nothing. What is not copied is left to `copy_into_place`, which raises the reason.
    """
    files = [_read(copy) for copy in copies]
    places = [(*os.path.split(copy.target), file) for copy, file in zip(copies, files, strict=True) if file is not None]
    try:
        placed = iter(place_all(places, open_folder))
    except OSError:
        return [False] * len(copies)
    return [file is not None and next(placed) is not None for file in files]


def _read(copy: FileCopy) -> SmallFile | None:
    """The file, if it is small and what it should be."""
    try:
        descriptor = os.open(copy.source, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            fingerprint = Fingerprint.of(os.fstat(descriptor))
            # Not as much as it may have: memory of that size would be mapped, and unmapped, for each file.
            data = os.read(descriptor, min(fingerprint.size_bytes, MAX_SMALL_BYTES) + 1)
            content = SmallContent.of(data, copy.content_id)
        finally:
            os.close(descriptor)
    except (OSError, ChunkCorruptError):
        return None
    return SmallFile(copy.name, content, FOUND, fingerprint.attributes)


async def copy_into_place(source: Path, target: Path, content_id: ContentId, *, overwrite: bool) -> bool:
    """Copy `source` to `target` in a thread; whether anything had to be copied. The folder of `target` exists.

    The copy is verified before it gets its name, has the source's modification time and executable bit, else the mode
    of a new file, keeps holes, and is on the disk when this returns.
    Raises NameTakenError (target is another content and not overwrite), ContentChangedError (source is not that
    content), NoSpaceError, StorageError. Safe to retry.
    """
    stop = threading.Event()
    work = asyncio.create_task(asyncio.to_thread(_copy, source, target, content_id, overwrite, stop), name="copy")
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        # The thread removes its temporary file; without waiting, the process could end before it has.
        stop.set()
        await asyncio.wait({work})
        raise


def _copy(source: Path, target: Path, content_id: ContentId, overwrite: bool, stop: threading.Event) -> bool:
    with storage_errors(f"cannot write {target}"):
        check_replaceable(target)
        if target.exists():
            if hash_path(target).content_id == content_id:
                return False
            if not overwrite:
                raise NameTakenError(f"{target} exists and is another content", hint="--overwrite replaces it")
        _copy_verified(source, target, content_id, overwrite, stop)
    return True


def _copy_verified(source: Path, target: Path, content_id: ContentId, overwrite: bool, stop: threading.Event) -> None:
    """Copy bytes and attributes. Raises ContentChangedError when the bytes are another content."""
    # Of a fixed length: a name may have as many bytes as the file system allows.
    temporary = target.parent / f".{secrets.token_hex(8)}.minga"
    with source.open("rb") as data:
        fingerprint = Fingerprint.of(os.fstat(data.fileno()))
        output = _new_file(temporary, mode_of(fingerprint.attributes))
        try:
            _copy_bytes(data.fileno(), output, fingerprint.size_bytes, stop)
            # What was written is read back: copies by the kernel do not pass through this process.
            if _hash_bytes(output, str(target), stop).content_id != content_id:
                raise ContentChangedError(
                    f"{source} is not the content {content_id.short} any more", hint="it was changed or damaged there"
                )
            set_modified(output, fingerprint.attributes)
            os.fsync(output)
            _give_name(output, temporary)
            move_into_place(temporary, target, overwrite=overwrite)
        finally:
            os.close(output)
            temporary.unlink(missing_ok=True)


def _new_file(path: Path, mode: int) -> int:
    """A descriptor of a new file for `_give_name`. Where the file system has files without a name it is one, of which
    `kill -9` leaves nothing; else it has that name from the beginning."""
    try:
        return os.open(path.parent, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, mode)
    except OSError:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)


def _give_name(descriptor: int, path: Path) -> None:
    if os.fstat(descriptor).st_nlink == 0:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            link_nameless(descriptor, path.name, folder)
        finally:
            os.close(folder)


def _hash_bytes(descriptor: int, what: str, stop: threading.Event) -> Manifest:
    """The manifest of an open file. Raises ContentChangedError once `stop` is set."""
    fingerprint = Fingerprint.of(os.fstat(descriptor))
    digests = bytearray()
    for index in range(Geometry(fingerprint.size_bytes).chunk_count):
        _check_stop(stop)
        digests += hash_range(descriptor, fingerprint, index, index + 1, what)
    return Manifest.from_digests(fingerprint.size_bytes, bytes(digests))


def _check_stop(stop: threading.Event) -> None:
    if stop.is_set():
        raise ContentChangedError("the copy was stopped")


def _copy_bytes(source: int, target: int, size_bytes: int, stop: threading.Event) -> None:
    """Copy everything but holes, sharing extents where the file system can. Raises ContentChangedError once `stop` is
    set."""
    os.ftruncate(target, size_bytes)
    for start, end in data_ranges(source, 0, size_bytes):
        for step in range(start, end, STEP_BYTES):
            _check_stop(stop)
            copy_range(source, target, step, min(step + STEP_BYTES, end))
