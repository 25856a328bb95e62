"""Copying a file of the shared folder to a target: whole or not at all."""

import asyncio
import errno
import os
import secrets
import stat
import threading
from pathlib import Path

from minga_core.chunks import Geometry
from minga_core.errors import ContentChangedError, NameTakenError, StorageError
from minga_core.ids import ContentId
from minga_core.manifest import Manifest
from minga_engine.parts.disk import storage_errors
from minga_engine.parts.files import Fingerprint, fsync_folder, move_without_replacing
from minga_engine.parts.hashing import hash_path, hash_range

STEP_BYTES = 16 * 1024 * 1024
"""Copied between two checks for cancellation."""
PIECE_BYTES = 1024 * 1024
"""Read and written in one go where the kernel cannot copy by itself."""
# Errors of copy_file_range(2) where a file system, or an old kernel, does not support it.
_UNSUPPORTED = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF, errno.EPERM)


async def copy_into_place(source: Path, target: Path, content_id: ContentId, *, overwrite: bool) -> bool:
    """Copy `source` to `target` in a thread; whether anything had to be copied. The folder of `target` exists.

    The copy is verified before it gets its name, has the mode of a new file, and is on the disk when this returns.
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


def check_target(target: Path) -> None:
    """Check that a file may go to `target`: nothing is there, or a regular file. Blocking.

    Raises StorageError for a folder, a device, a FIFO, a socket, and a link to one of them or to nothing; OSError.
    """
    try:
        mode = target.stat().st_mode
    except FileNotFoundError:
        if target.is_symlink():
            raise StorageError(f"{target} is a link to nothing; it is not replaced") from None
        return
    if stat.S_ISDIR(mode):
        raise StorageError(f"{target} is a folder", hint=f"-o {target}/ puts the file inside it")
    if not stat.S_ISREG(mode):
        raise StorageError(f"{target} is a device, a pipe or a socket; it is not replaced")


def _copy(source: Path, target: Path, content_id: ContentId, overwrite: bool, stop: threading.Event) -> bool:
    with storage_errors(f"cannot write {target}"):
        check_target(target)
        if target.exists():
            if hash_path(target).content_id == content_id:
                return False
            if not overwrite:
                raise NameTakenError(f"{target} exists and is another content", hint="--overwrite replaces it")
        with fsync_folder(target.parent) as parent:
            # Of a fixed length: a name may have as many bytes as the file system allows.
            temporary = target.parent / f".{secrets.token_hex(8)}.minga"
            try:
                _copy_verified(source, temporary, content_id, stop)
                if overwrite:
                    check_target(target)
                    temporary.replace(target)
                else:
                    move_without_replacing(temporary, target.name, parent)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
    return True


def _copy_verified(source: Path, copy: Path, content_id: ContentId, stop: threading.Event) -> None:
    """Make a new file `copy` with the bytes of `source`. Raises ContentChangedError when they are another content."""
    # The kernel applies the umask to this mode.
    output = os.open(copy, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        with source.open("rb") as data:
            _copy_bytes(data.fileno(), output, stop)
        # What was written is read back: copies by the kernel do not pass through this process.
        if _hash_bytes(output, str(copy), stop).content_id != content_id:
            raise ContentChangedError(
                f"{source} is not the content {content_id.short} any more", hint="it was changed or damaged there"
            )
        os.fsync(output)
    finally:
        os.close(output)


def _hash_bytes(descriptor: int, what: str, stop: threading.Event) -> Manifest:
    """The manifest of an open file. Raises ContentChangedError once `stop` is set."""
    fingerprint = Fingerprint.of(os.fstat(descriptor))
    digests = b""
    for index in range(Geometry(fingerprint.size_bytes).chunk_count):
        _check_stop(stop)
        digests += hash_range(descriptor, fingerprint, index, index + 1, what)
    return Manifest.from_digests(fingerprint.size_bytes, digests)


def _check_stop(stop: threading.Event) -> None:
    if stop.is_set():
        raise ContentChangedError("the copy was stopped")


def _copy_bytes(source: int, target: int, stop: threading.Event) -> None:
    """Copy everything, sharing extents where the file system can. Raises ContentChangedError once `stop` is set."""
    wanted = os.fstat(source).st_size
    done, by_kernel = 0, hasattr(os, "copy_file_range")
    while done < wanted:
        _check_stop(stop)
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
