"""How much more may be stored: the lesser of what the disk has free and what the owner's capacity leaves."""

import os
from contextlib import suppress
from pathlib import Path

from minga_peer.share.inventory import Inventory


class FreeSpace:
    """Free bytes, less what unfinished downloads will still write. `measure` blocks, the rest does not."""

    def __init__(self, root: Path, capacity_bytes: int | None, inventory: Inventory) -> None:
        self._root = root
        self._capacity_bytes = capacity_bytes
        self._inventory = inventory
        self._disk_free_bytes = 0
        self.reserved_bytes = 0
        """Bytes of small files that are being written and not shared yet."""

    def measure(self) -> None:
        """Ask the file system. Keeps the last answer when it does not give one."""
        with suppress(OSError):
            disk = os.statvfs(self._root)
            self._disk_free_bytes = disk.f_bavail * disk.f_frsize

    @property
    def capacity_bytes(self) -> int:
        """Bytes that may be held in all."""
        return self._capacity_bytes if self._capacity_bytes is not None else self._used_bytes + self._disk_free_bytes

    @property
    def free_bytes(self) -> int:
        """Bytes that new contents may take."""
        unwritten = sum(part.manifest.size_bytes - part.held_bytes for part in self._inventory.parts.values())
        on_disk = self._disk_free_bytes - unwritten - self.reserved_bytes
        allowed = on_disk if self._capacity_bytes is None else self._capacity_bytes - self._used_bytes
        return max(0, min(on_disk, allowed))

    @property
    def _used_bytes(self) -> int:
        """Bytes of files and of parts once they are complete."""
        parts = sum(part.manifest.size_bytes for part in self._inventory.parts.values())
        return self._inventory.shared_bytes + parts + self.reserved_bytes
