"""Holes of sparse files: found by SEEK_DATA and SEEK_HOLE, left where there is nothing but zeros, kept by copies.

Where a file system does not tell holes from data, all of a file is data, and what was sparse becomes full.
"""

import errno
import os
from collections.abc import Iterator

_ZEROS = bytes(4096)
_COPY_BYTES = 1024 * 1024
WRITE_BYTES = 256 * 1024
"""Written at a time. The kernel makes one folio of the page cache of a larger write, of 2 MiB at most, and free blocks
of that size are what a virtual machine gives back to its host: to get one again took eight times the processor time of
filling it (adr/0060)."""


def is_zero(data: bytes | bytearray | memoryview) -> bool:
    """Whether there is nothing but zeros. Ends at the first block that has anything else."""
    view = memoryview(data)
    starts = range(0, len(view), len(_ZEROS))
    return all(bytes(view[start : start + len(_ZEROS)]) == _ZEROS[: len(view) - start] for start in starts)


def is_hole(descriptor: int, offset: int, length: int) -> bool:
    """Whether a range of an open file is one hole, so that it reads as zeros. Blocking."""
    return next(data_ranges(descriptor, offset, offset + length), None) is None


def data_ranges(descriptor: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The ranges between two offsets of an open file that are not holes, in order. Blocking.

    Moves the descriptor's position, which threads share: use it with pread and pwrite only.
    """
    while start < end:
        try:
            data = os.lseek(descriptor, start, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                # No data up to the end of the file.
                return
            yield start, end
            return
        if data >= end:
            return
        start = min(os.lseek(descriptor, data, os.SEEK_HOLE), end)
        yield data, start


def copy_range(source: int, target: int, start: int, end: int) -> None:
    """Copy as much of a range as `source` has, by the kernel where it can. Blocking. Raises OSError."""
    while start < end:
        try:
            count = os.copy_file_range(source, target, end - start, start, start)
        except OSError:
            # Not between these file systems, or not on this one: through our memory then. What is wrong with the disk
            # itself shows there again.
            data = os.pread(source, min(_COPY_BYTES, end - start), start)
            write_at(target, data, start)
            count = len(data)
        if count == 0:
            return
        start += count


def write_at(descriptor: int, data: bytes | bytearray | memoryview, offset: int) -> None:
    """Write all of `data`, in pieces. Blocking. Raises OSError."""
    view = memoryview(data)
    while view:
        count = os.pwrite(descriptor, view[:WRITE_BYTES], offset)
        view, offset = view[count:], offset + count
