"""The clock by which a file system stamps its files."""

import os
import tempfile
import time
from contextlib import suppress
from pathlib import Path

TICK_NS = 1_000_000_000
"""Times of files are those of the kernel's last tick, or a file server's."""


class FileClock:
    """What times of files are compared with: the folder may be on a server, whose clock is not this machine's."""

    def __init__(self) -> None:
        self._ahead_ns = 0
        self._measured_ns = time.time_ns()

    def measure(self, folder: Path) -> None:
        """Look at the time that a new file of the folder gets. Where there can be none, as on a full disk, the clocks
        count as equal. Blocking."""
        with suppress(OSError), tempfile.TemporaryFile(dir=folder) as file:
            self._measured_ns = os.fstat(file.fileno()).st_ctime_ns
            self._ahead_ns = self._measured_ns - time.time_ns()

    def is_since_measured(self, modified_ns: int) -> bool:
        """Whether a file that was written then was since `measure`. A time of the future is one of a wrong clock."""
        return self._measured_ns < modified_ns <= self.now_ns() + TICK_NS

    def now_ns(self) -> int:
        """Nanoseconds since 1970."""
        return time.time_ns() + self._ahead_ns
