"""What a process keeps of memory that it has freed."""

import ctypes
import subprocess
import sys

import pytest

from minga_runtime.allocator import LARGE_BYTES

RUN = f"""
import ctypes
from minga_runtime.allocator import return_large_objects

class Used(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in
                ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keep")]

mallinfo = ctypes.CDLL(None).mallinfo2
mallinfo.restype = Used
return_large_objects()
# By itself glibc would take the next one of this size from the heap, as one has been freed.
freed = bytearray({4 * LARGE_BYTES})
del freed
before = mallinfo().hblkhd
kept = bytearray({2 * LARGE_BYTES})
print(mallinfo().hblkhd - before)
"""


def test_large_objects_have_pages_of_their_own() -> None:
    """Also after a larger one was freed. glibc's own count of bytes in such pages tells."""
    if not hasattr(ctypes.CDLL(None), "mallinfo2"):
        pytest.skip("no glibc, or one before 2.33")
    run = subprocess.run([sys.executable, "-c", RUN], capture_output=True, text=True, check=True, timeout=60)
    assert int(run.stdout) >= 2 * LARGE_BYTES
