"""What all modules that touch files need: a file's fingerprint, chunks in open files, durable folders and moves."""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from minga_core.errors import ContentChangedError, NameTakenError

PARTS_FOLDER = ".minga-parts"
"""Where a process without a shared folder keeps its parts, beside the file that they become; never shared."""
_MAX_TIME_NS = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What distinguishes two states of a file without reading it."""

    size_bytes: int
    modified_ns: int
    changed_ns: int
    """When the kernel last changed the inode: unlike the modification time no program can set it back."""
    inode: int
    device: int

    @classmethod
    def of(cls, status: os.stat_result) -> "Fingerprint":
        """The fingerprint of a stat. Times before 1970 or after 2262 become the nearest that 64 bits can tell."""
        modified_ns, changed_ns = _bounded(status.st_mtime_ns), _bounded(status.st_ctime_ns)
        return cls(status.st_size, modified_ns, changed_ns, status.st_ino, status.st_dev)

    def moved(self, now: "Fingerprint") -> "Fingerprint":
        """The fingerprint after a move, which changes the inode: `now`, if nothing else changed; else this one."""
        return now if replace(now, changed_ns=self.changed_ns) == self else self


def _bounded(time_ns: int) -> int:
    return min(max(time_ns, 0), _MAX_TIME_NS)


@dataclass(frozen=True, slots=True)
class OpenChunk:
    """A chunk in an open file."""

    descriptor: int
    offset: int
    """Bytes from the file's start."""
    size_bytes: int
    check: Callable[[], None] = lambda: None
    """Blocking. Raises ContentChangedError when the file no longer is what was hashed; call it before and after
    reading."""

    def read(self) -> bytes:
        """The chunk's bytes. Blocking. Raises ContentChangedError, OSError."""
        self.check()
        data = os.pread(self.descriptor, self.size_bytes, self.offset)
        if len(data) != self.size_bytes:
            raise ContentChangedError("the file became shorter")
        self.check()
        return data


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
    """Move `source` to `base` in an open folder. Raises NameTakenError when something has that name."""
    try:
        os.link(source, base, dst_dir_fd=parent, follow_symlinks=False)
    except FileExistsError:
        raise _taken(base) from None
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
            raise
        _claim_and_replace(source, base, parent)
    else:
        os.unlink(source)


def _claim_and_replace(source: Path, base: str, parent: int) -> None:
    """As `move_without_replacing` where there are no hard links: claim the name, then replace our own claim."""
    try:
        os.close(os.open(base, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644, dir_fd=parent))
    except FileExistsError:
        raise _taken(base) from None
    try:
        os.replace(source, base, dst_dir_fd=parent)
    except OSError:
        os.unlink(base, dir_fd=parent)
        raise


def _taken(base: str) -> NameTakenError:
    return NameTakenError(f"{base} is there already", hint="--overwrite replaces it")
