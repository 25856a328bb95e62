"""A finished file of the shared folder copied to where the user wants it: whole or not at all."""

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
from minga_engine.parts.disk import told_as
from minga_engine.parts.hashing import hash_path

STEP_BYTES = 16 * 1024 * 1024
"""Copied between two looks at whether somebody pressed Ctrl-C."""
PIECE_BYTES = 1024 * 1024
"""Copied at once where the kernel cannot do it alone."""
# What file systems that cannot share extents, and old kernels, say to copy_file_range(2).
_NOT_SO = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF, errno.EPERM)


async def copy_into_place(source: Path, target: Path, content_id: ContentId | None, *, overwrite: bool) -> bool:
    """Copies `source` to `target` in a thread; whether anything had to be copied. The folder of `target` exists.

    Raises NameTakenError (target is another content and not overwrite), NoSpaceError, StorageError. Safe to retry.
    """
    stop = threading.Event()
    work = asyncio.create_task(asyncio.to_thread(_copy, source, target, content_id, overwrite, stop), name="copy")
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        # The thread clears its temporary file away; without waiting, the process could end before.
        stop.set()
        await asyncio.wait({work})
        raise


def _copy(source: Path, target: Path, content_id: ContentId | None, overwrite: bool, stop: threading.Event) -> bool:
    with told_as(f"cannot write {target}"):
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
    """Copies everything, sharing extents where the file system can. Raises ContentChangedError when told to stop."""
    wanted = os.fstat(source).st_size
    done, by_kernel = 0, hasattr(os, "copy_file_range")
    while done < wanted:
        if stop.is_set():
            raise ContentChangedError("the copy was stopped")
        count = min(STEP_BYTES, wanted - done)
        try:
            copied = os.copy_file_range(source, target, count) if by_kernel else _copy_piece(source, target)
        except OSError as error:
            if not by_kernel or error.errno not in _NOT_SO:
                raise
            by_kernel = False
            continue
        if copied == 0:
            raise ContentChangedError("the file became shorter while it was copied", hint="run the command again")
        done += copied


def _copy_piece(source: int, target: int) -> int:
    """Copies the next MiB at most; how many bytes it had."""
    piece = memoryview(os.read(source, PIECE_BYTES))
    written = 0
    while written < len(piece):
        written += os.write(target, piece[written:])
    return written
