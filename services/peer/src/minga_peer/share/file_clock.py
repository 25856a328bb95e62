"""The clock by which a file system stamps its files."""

import os
import tempfile
import time
from contextlib import suppress
from pathlib import Path


class FileClock:
    """What times of files are compared with: the folder may be on a server, whose clock is not this machine's."""

    def __init__(self) -> None:
        self._ahead_ns = 0

    def measure(self, folder: Path) -> None:
        """Look at the time that a new file of the folder gets. Where there can be none, as on a full disk, the clocks
        count as equal. Blocking."""
        with suppress(OSError), tempfile.TemporaryFile(dir=folder) as file:
            self._ahead_ns = os.fstat(file.fileno()).st_ctime_ns - time.time_ns()

    def now_ns(self) -> int:
        """Nanoseconds since 1970."""
        return time.time_ns() + self._ahead_ns
