"""How much more may be stored: the lesser of what the disk has free and what the owner's capacity leaves."""

import os
from contextlib import suppress
from pathlib import Path

from minga_peer.share.inventory import Inventory

LITTLE_BYTES = 16 * 1024 * 1024
"""Less than this, or than a hundredth of a smaller capacity, is no room: a full disk keeps a few blocks."""


class FreeSpace:
    """Free bytes, less what parts that are being written will still take. `measure` blocks, the rest does not.

    An idle part reserves nothing: nobody may ever resume it.
    """

    def __init__(self, root: Path, capacity_bytes: int | None, inventory: Inventory) -> None:
        self._root = root
        self._capacity_bytes = capacity_bytes
        self._inventory = inventory
        self._disk_free_bytes = 0
        self.read_only = False
        """Whether this user can write nothing there, or the file system is mounted so."""
        self.reserved_bytes = 0
        """Bytes of small files that are being written and not shared yet."""

    def measure(self) -> None:
        """Ask the file system. Keeps the last answer when it does not give one."""
        with suppress(OSError):
            disk = os.statvfs(self._root)
            self.read_only = not os.access(self._root, os.W_OK)
            self._disk_free_bytes = 0 if self.read_only else disk.f_bavail * disk.f_frsize

    @property
    def used_up(self) -> bool:
        """Whether there is next to no room where something could be written."""
        return not self.read_only and self.free_bytes < min(LITTLE_BYTES, self.capacity_bytes // 100 + 1)

    @property
    def capacity_bytes(self) -> int:
        """Bytes that may be held in all."""
        return self._capacity_bytes if self._capacity_bytes is not None else self._used_bytes + self._disk_free_bytes

    @property
    def free_bytes(self) -> int:
        """Bytes that new contents may take, with those of idle parts, which make room for them."""
        idle = sum(part.held_bytes for part in self._inventory.parts.values() if not part.writing)
        return max(0, self._left_bytes + idle)

    @property
    def unused_bytes(self) -> int:
        """Bytes that can be taken without deleting an idle part."""
        return max(0, self._left_bytes)

    @property
    def missing_bytes(self) -> int:
        """Bytes that idle parts must free for what is being written."""
        return max(0, -self._left_bytes)

    @property
    def _left_bytes(self) -> int:
        """What is left when all that is being written is complete; may be negative."""
        writing = [part for part in self._inventory.parts.values() if part.writing]
        unwritten = sum(part.manifest.size_bytes - part.held_bytes for part in writing)
        on_disk = self._disk_free_bytes - unwritten - self.reserved_bytes
        return on_disk if self._capacity_bytes is None else min(on_disk, self._capacity_bytes - self._used_bytes)

    @property
    def _used_bytes(self) -> int:
        """Bytes of files, of parts that are being written once they are complete, and of what idle parts hold."""
        parts = self._inventory.parts.values()
        held = sum(part.manifest.size_bytes if part.writing else part.held_bytes for part in parts)
        return self._inventory.shared_bytes + held + self.reserved_bytes
