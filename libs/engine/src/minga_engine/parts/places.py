"""Bytes of a content in a file of this machine: what reads them there may be another process than what fetched them."""

import os
from dataclasses import dataclass
from typing import Self

from minga_core.errors import ContentChangedError
from minga_engine.parts.disk import storage_errors
from minga_engine.parts.files import Fingerprint

MAX_READ_BYTES = 1 << 30
"""In one system call: Linux reads 2 GiB at most."""


class OpenFile:
    """A descriptor for reading, closed with the last reference to this: for any thread, and for a forked child."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.changed = False
        """Whether it was found to be another file than what was hashed: what was known of it holds no more."""

    @classmethod
    def again(cls, descriptor: int) -> Self:
        """An open file once more, for reading alone: locks of the first descriptor are not its own. It need not have a
        name any more. Blocking. Raises OSError."""
        return cls(os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC))

    def is_same(self, descriptor: int) -> bool:
        """Whether a descriptor is one of this file. Blocking. Raises OSError."""
        return os.path.sameopenfile(self.descriptor, descriptor)

    def __del__(self) -> None:
        os.close(self.descriptor)


@dataclass(frozen=True, slots=True)
class Place:
    """Verified bytes of a content, from `start` to before `stop`, which are at their own offsets in a file."""

    file: OpenFile
    start: int
    stop: int
    fingerprint: Fingerprint | None = None
    """With it this is good for as long as the file has it, which each read checks. Without it the file is a part, which
    becomes one that programs may change: read at once, and once."""

    def read(self, offset: int, length: int) -> bytes:
        """`length` bytes at most, one at least, from an offset that is inside. Blocking. Raises ContentChangedError,
        StorageError."""
        wanted = self._within(offset, length)
        with storage_errors("cannot read the file"):
            data = os.pread(self.file.descriptor, wanted, offset)
        self._check(len(data), wanted)
        return data

    def read_into(self, buffer: memoryview, offset: int) -> int:
        """As `read`, into the beginning of a buffer, which is not empty; how many bytes. After an error the buffer has
        any content."""
        wanted = self._within(offset, len(buffer))
        with storage_errors("cannot read the file"):
            count = os.preadv(self.file.descriptor, [buffer[:wanted]], offset)
        self._check(count, wanted)
        return count

    def _within(self, offset: int, length: int) -> int:
        return min(length, self.stop - offset, MAX_READ_BYTES)

    def _check(self, count: int, wanted: int) -> None:
        if count != wanted or not self._is_unchanged():
            self.file.changed = True
            raise ContentChangedError("the file changed")

    def _is_unchanged(self) -> bool:
        if self.fingerprint is None:
            return True
        with storage_errors("cannot read the file"):
            status = os.fstat(self.file.descriptor)
        now = Fingerprint.of(status)
        # Losing its last name changes the inode, and no byte.
        return now in (self.fingerprint, None if status.st_nlink else self.fingerprint.moved(now))
