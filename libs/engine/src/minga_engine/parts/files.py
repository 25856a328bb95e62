"""What all modules that touch files need: fingerprints, attributes, holes, chunks in open files, durable moves."""

import ctypes
import errno
import os
import stat
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from minga_core.attributes import FileAttributes
from minga_core.errors import ContentChangedError, NameTakenError, StorageError
from minga_engine.parts.disk import storage_errors

PARTS_FOLDER = ".minga-parts"
"""Where a process without a shared folder keeps its parts, beside the file that they become; never shared."""
IGNORE_FILE = ".mingaignore"
"""In the root of a folder: what of it is left out. Never shared, never stored."""
_MAX_TIME_NS = (1 << 63) - 1
_FINGERPRINT = struct.Struct(">qqqQQ?")
FINGERPRINT_BYTES = _FINGERPRINT.size
_CHANGED_AT, _INODE_AT = 16, 24
"""Where in it the change time begins and ends."""
_libc = ctypes.CDLL(None, use_errno=True)
"""For syncfs(2), which Python does not have."""


class Fingerprint(bytes):
    """What distinguishes two states of a file without reading it."""

    # Packed: a peer keeps one of each file that it shares, and as an object with six numbers it takes three times that.
    __slots__ = ()

    def __new__(
        cls, size_bytes: int, modified_ns: int, changed_ns: int, inode: int, device: int, executable: bool = False
    ) -> Self:
        return super().__new__(
            cls, _FINGERPRINT.pack(size_bytes, modified_ns, changed_ns, inode, device, bool(executable))
        )

    @classmethod
    def unpack(cls, packed: bytes) -> Self:
        """The fingerprint that has those FINGERPRINT_BYTES."""
        return super().__new__(cls, packed)

    @property
    def numbers(self) -> tuple[int, int, int, int, int, bool]:
        """What it was made of, in that order."""
        size_bytes, modified_ns, changed_ns, inode, device, executable = _FINGERPRINT.unpack(self)
        return size_bytes, modified_ns, changed_ns, inode, device, executable

    @property
    def size_bytes(self) -> int:
        """Size of the file."""
        return self.numbers[0]

    @property
    def modified_ns(self) -> int:
        """Modification time."""
        return self.numbers[1]

    @property
    def changed_ns(self) -> int:
        """When the kernel last changed the inode: unlike the modification time no program can set it back."""
        return self.numbers[2]

    @property
    def inode(self) -> int:
        """Number of the file in its file system."""
        return self.numbers[3]

    @property
    def device(self) -> int:
        """Number of the file system."""
        return self.numbers[4]

    @property
    def executable(self) -> bool:
        """Whether the owner may execute it."""
        return self.numbers[5]

    @classmethod
    def of(cls, status: os.stat_result) -> Self:
        """The fingerprint of a stat. Times before 1970 or after 2262 become the nearest that 64 bits can tell."""
        modified_ns, changed_ns = _bounded(status.st_mtime_ns), _bounded(status.st_ctime_ns)
        executable = bool(status.st_mode & stat.S_IXUSR)
        return cls(status.st_size, modified_ns, changed_ns, status.st_ino, status.st_dev, executable)

    @property
    def attributes(self) -> FileAttributes:
        """What of the file travels with its name."""
        return FileAttributes(self.modified_ns, self.executable)

    def moved(self, now: "Fingerprint") -> "Fingerprint":
        """The fingerprint after a move, which changes the inode: `now`, if nothing else changed; else this one."""
        return now if (now[:_CHANGED_AT], now[_INODE_AT:]) == (self[:_CHANGED_AT], self[_INODE_AT:]) else self


def _bounded(time_ns: int) -> int:
    # Nearly always as it is: half the time that `min` and `max` take.
    return time_ns if 0 <= time_ns <= _MAX_TIME_NS else min(max(time_ns, 0), _MAX_TIME_NS)


@dataclass(frozen=True, slots=True)
class OpenChunk:
    """A chunk in an open file."""

    descriptor: int
    offset: int
    """Bytes from the file's start."""
    size_bytes: int
    fingerprint: Fingerprint | None = None
    """That of the whole file, if programs may change it. None for a part, whose chunks stay as they are."""

    def check(self) -> None:
        """Check that the file is what was hashed; call it before and after reading. Blocking.

        Raises ContentChangedError, StorageError.
        """
        if self.fingerprint is not None:
            with storage_errors("cannot read the file"):
                status = os.fstat(self.descriptor)
            if Fingerprint.of(status) != self.fingerprint:
                raise ContentChangedError("the file changed")

    def read(self, start: int = 0, length: int | None = None) -> bytes:
        """The bytes from `start` on, `length` at most (all). Blocking. Raises ContentChangedError, OSError."""
        wanted = min(self.size_bytes - start, self.size_bytes if length is None else length)
        self.check()
        data = os.pread(self.descriptor, wanted, self.offset + start)
        if len(data) != wanted:
            raise ContentChangedError("the file became shorter")
        self.check()
        return data


@contextmanager
def open_folder(path: Path | str) -> Iterator[int]:
    """A descriptor of a folder until the end of the block."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def fsync_folder(path: Path) -> Iterator[int]:
    """A descriptor of a folder, whose changes are on the disk at the end of the block."""
    with open_folder(path) as descriptor:
        yield descriptor
        os.fsync(descriptor)


def sync_file_systems(descriptors: Iterable[int]) -> None:
    """Have all that was written to the file systems of open files on their disks, what others wrote too. Blocking.

    Raises OSError, for a write that failed as well (Linux 5.8 and later).
    """
    for descriptor in {os.fstat(descriptor).st_dev: descriptor for descriptor in descriptors}.values():
        if _libc.syncfs(descriptor):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))


def mode_of(attributes: FileAttributes) -> int:
    """The mode to create a file with; the kernel takes the umask off."""
    return 0o777 if attributes.executable else 0o666


def set_executable(descriptor: int, attributes: FileAttributes) -> None:
    """Let those who may read an open file execute it, or nobody, where its mode says something else. Blocking.

    Not every file system has such a bit; a file is not lost for that.
    """
    mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
    if attributes.executable != bool(mode & stat.S_IXUSR):
        with suppress(OSError):
            os.fchmod(descriptor, mode | (mode & 0o444) >> 2 if attributes.executable else mode & ~0o111)


def set_modified(descriptor: int, attributes: FileAttributes) -> None:
    """Set the modification time of an open file, if there is one to be kept and the file system lets. Blocking."""
    if attributes.modified_ns is not None:
        with suppress(OSError):
            os.utime(descriptor, ns=(os.fstat(descriptor).st_atime_ns, attributes.modified_ns))


def check_replaceable(target: Path) -> None:
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


def link_nameless(descriptor: int, base: str, folder: int) -> None:
    """Give an open file without a name (O_TMPFILE) the name `base` in an open folder. Blocking.

    Raises OSError, FileExistsError when something has that name.
    """
    os.link(f"/proc/self/fd/{descriptor}", base, dst_dir_fd=folder, follow_symlinks=True)


def move_into_place(source: Path, target: Path, *, overwrite: bool) -> None:
    """Move a file to `target` in an existing folder of the same file system, in one step and durably. Blocking.

    Raises NameTakenError when something is there and not `overwrite`, what `check_replaceable` raises, OSError.
    """
    with fsync_folder(target.parent) as parent:
        if overwrite:
            # The kernel has no rename that asks what it replaces: this is as late as one can look.
            check_replaceable(target)
            source.replace(target)
        else:
            move_without_replacing(source, target.name, parent)


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
