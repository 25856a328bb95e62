"""Copying a file of the shared folder to a target: whole or not at all."""

import asyncio
import errno
import os
import shutil
import tempfile
import threading
from contextlib import suppress
from pathlib import Path

from minga_core.errors import ContentChangedError, NameTakenError
from minga_core.ids import ContentId
from minga_engine.parts.disk import storage_errors
from minga_engine.parts.hashing import hash_path

STEP_BYTES = 16 * 1024 * 1024
"""Copied between two checks for cancellation."""
PIECE_BYTES = 1024 * 1024
"""Read and written in one go where the kernel cannot copy by itself."""
# Errors of copy_file_range(2) where a file system, or an old kernel, does not support it.
_UNSUPPORTED = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF, errno.EPERM)


async def copy_into_place(source: Path, target: Path, content_id: ContentId | None, *, overwrite: bool) -> bool:
    """Copy `source` to `target` in a thread; whether anything had to be copied. The folder of `target` exists.

    Raises NameTakenError (target is another content and not overwrite), NoSpaceError, StorageError. Safe to retry.
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


def _copy(source: Path, target: Path, content_id: ContentId | None, overwrite: bool, stop: threading.Event) -> bool:
    with storage_errors(f"cannot write {target}"):
        if target.exists():
            if target.samefile(source) or (content_id is not None and hash_path(target).content_id == content_id):
                return False
            if not overwrite:
                raise NameTakenError(f"{target} exists and is another content", hint="--overwrite replaces it")
        handle, name = tempfile.mkstemp(prefix=f".{target.name[:100]}.", suffix=".minga", dir=target.parent)
        try:
            with os.fdopen(handle, "wb") as output, source.open("rb") as data:
                _copy_bytes(data.fileno(), output.fileno(), stop)
                os.fsync(output.fileno())
            shutil.copymode(source, name)
            Path(name).replace(target)
        except BaseException:
            with suppress(FileNotFoundError):  # it has its final name already
                Path(name).unlink()
            raise
    return True


def _copy_bytes(source: int, target: int, stop: threading.Event) -> None:
    """Copy everything, sharing extents where the file system can. Raises ContentChangedError once `stop` is set."""
    wanted = os.fstat(source).st_size
    done, by_kernel = 0, hasattr(os, "copy_file_range")
    while done < wanted:
        if stop.is_set():
            raise ContentChangedError("the copy was stopped")
        count = min(STEP_BYTES, wanted - done)
        try:
            copied = os.copy_file_range(source, target, count) if by_kernel else _copy_piece(source, target)
        except OSError as error:
            if not by_kernel or error.errno not in _UNSUPPORTED:
                raise
            by_kernel = False
            continue
        if copied == 0:
            raise ContentChangedError("the file became shorter while it was copied", hint="run the command again")
        done += copied


def _copy_piece(source: int, target: int) -> int:
    """Copy at most the next MiB; the number of bytes copied."""
    piece = memoryview(os.read(source, PIECE_BYTES))
    written = 0
    while written < len(piece):
        written += os.write(target, piece[written:])
    return written
