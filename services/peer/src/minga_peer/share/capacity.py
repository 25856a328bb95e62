"""How much more may be stored: the lesser of what the disk has and what the owner allows."""

import os
from contextlib import suppress
from pathlib import Path


class Capacity:
    """Free space, with what unfinished parts will still take set apart. `measure` blocks, the rest does not."""

    def __init__(self, root: Path, limit_bytes: int | None) -> None:
        self._root = root
        self._limit_bytes = limit_bytes
        self._disk_free_bytes = 0

    def measure(self) -> None:
        """Asks the file system. Keeps the last answer when it does not give one."""
        with suppress(OSError):
            disk = os.statvfs(self._root)
            self._disk_free_bytes = disk.f_bavail * disk.f_frsize

    def total_bytes(self, used_bytes: int) -> int:
        """What may be held in all. used_bytes: what files and parts have, once they are whole."""
        return self._limit_bytes if self._limit_bytes is not None else used_bytes + self._disk_free_bytes

    def free_bytes(self, used_bytes: int, unwritten_bytes: int) -> int:
        """What new contents may take. unwritten_bytes: what parts that were let in have still to write."""
        on_disk = self._disk_free_bytes - unwritten_bytes
        allowed = on_disk if self._limit_bytes is None else self._limit_bytes - used_bytes
        return max(0, min(on_disk, allowed))
