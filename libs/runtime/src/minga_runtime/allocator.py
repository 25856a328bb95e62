"""How the C library's malloc keeps the memory of a process that is small, and very large for a moment."""

import ctypes
import sys
from contextlib import suppress

LARGE_BYTES = 4 * 1024 * 1024
"""From this size on each object has its own pages, which go back to the system when it does. Buffers of chunks, which
are freed and made all the time, are smaller, or have their own pages anyway."""
ARENAS = 2
"""Heaps that threads share. With one or two for each thread, what one has freed no other uses."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
"""Of mallopt(3)."""


def return_large_objects() -> None:
    """Have malloc return large objects to the system when they are freed, and keep few heaps. Never raises an error.

    Only for glibc, which by itself keeps objects up to the largest that was ever freed, or up to 32 MiB. Call it before
    there are threads.
    """
    if sys.platform != "linux":
        return
    library = ctypes.CDLL(None)
    # Other C libraries have no mallopt.
    with suppress(AttributeError):
        library.mallopt(_M_ARENA_MAX, ARENAS)
        library.mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES)
        # As it is set, nothing is returned to the system and requested again for each small buffer.
        library.mallopt(_M_TRIM_THRESHOLD, LARGE_BYTES)
