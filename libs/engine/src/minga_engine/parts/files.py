"""What every room that touches files needs: the fingerprint of a file, durable folders, moves that replace nothing."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from minga_core.errors import NameTakenError

PARTS_FOLDER = ".minga-parts"
"""Where a command without a daemon keeps its parts, beside the file that comes of them; never shared."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """What tells one state of a file from another without reading it."""

    size_bytes: int
    modified_ns: int
    inode: int
    device: int

    @classmethod
    def of(cls, status: os.stat_result) -> "Stamp":
        """The stamp of a stat."""
        return cls(status.st_size, status.st_mtime_ns, status.st_ino, status.st_dev)


@contextmanager
def fsync_folder(path: Path) -> Iterator[int]:
    """A descriptor of a folder, whose changes are on the disk at the end of the block."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def move_without_replacing(source: Path, base: str, parent: int) -> None:
    """Moves `source` to `base` in an open folder. Raises NameTakenError when something has that name."""
    try:
        os.link(source, base, dst_dir_fd=parent, follow_symlinks=False)
    except FileExistsError:
        raise NameTakenError(f"{base} is there already", hint="--overwrite replaces it") from None
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
            raise
        # No hard links on this file system: claim the name first, then replace our own claim.
        try:
            os.close(os.open(base, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644, dir_fd=parent))
        except FileExistsError:
            raise NameTakenError(f"{base} is there already", hint="--overwrite replaces it") from None
        try:
            os.replace(source, base, dst_dir_fd=parent)
        except OSError:
            os.unlink(base, dir_fd=parent)
            raise
        return
    os.unlink(source)
