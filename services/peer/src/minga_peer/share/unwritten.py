"""What the index is yet to write, by name: of each file the last change alone, so that it is bounded by what is shared.

Nothing here waits for long on a good disk. On one that is full it is written once there is room.
"""

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import NamedTuple

from minga_core.manifest import Manifest
from minga_core.names import Name
from minga_core.records import Published
from minga_peer.share.indexed_file import IndexedFile

BATCH_CHANGES = 1_000
"""Changes of one transaction: what is tried again and again while the disk is full."""
MAX_UNWRITTEN_BYTES = 64 * 1024 * 1024
"""Bound of what waits. Beyond it the oldest changes are forgotten: these files are hashed again after a restart."""
_CHANGE_BYTES = 512
"""What a change takes besides its digests."""


class Change(NamedTuple):
    """What is to become of a name's entry."""

    name: Name
    file: IndexedFile | None = None
    """None: the entry goes."""
    manifest: Manifest | None = None
    """None: only the file's time of publication changes, if the entry is of that content."""

    @property
    def is_time_only(self) -> bool:
        """Whether the entry stays as it is but for its time."""
        return self.file is not None and self.manifest is None

    @property
    def size_bytes(self) -> int:
        """About what it takes."""
        return _CHANGE_BYTES + (len(self.manifest.digests) if self.manifest is not None else 0)


class Unwritten:
    """Changes in the order in which their names came. Only for the event loop's thread."""

    def __init__(self, max_bytes: int = MAX_UNWRITTEN_BYTES) -> None:
        self._max_bytes = max_bytes
        self._changes: dict[Name, Change] = {}
        self._size_bytes = 0
        self.forgotten_count = 0
        """Changes that were dropped, for there were too many."""

    def __len__(self) -> int:
        return len(self._changes)

    @property
    def batch_count(self) -> int:
        """Batches that all of it is."""
        return -(-len(self._changes) // BATCH_CHANGES)

    def put(self, files: Iterable[tuple[IndexedFile, Manifest]]) -> None:
        """Have entries written."""
        for file, manifest in files:
            self._add(Change(file.name, file, manifest))

    def remove(self, names: Iterable[Name]) -> None:
        """Have entries removed."""
        for name in names:
            self._add(Change(name))

    def publish(self, files: Iterable[IndexedFile]) -> None:
        """Have times of publication written, each if the entry is of that content still."""
        for file in files:
            waiting = self._changes.get(file.name)
            if waiting is None or waiting.is_time_only:
                self._add(Change(file.name, file))
            elif waiting.file is not None and waiting.file.content_id == file.content_id:
                published = waiting.file.published(Published(file.published_ns, file.tag))
                self._add(waiting._replace(file=published))

    def batch(self) -> list[Change]:
        """The first ones, as many as one transaction takes."""
        return list(islice(self._changes.values(), BATCH_CHANGES))

    def written(self, batch: Sequence[Change]) -> None:
        """Note that these are in the index. One that has changed again meanwhile still waits."""
        for change in batch:
            if self._changes.get(change.name) is change:
                self._drop(change.name)

    def _add(self, change: Change) -> None:
        if change.name in self._changes:
            self._drop(change.name)
        self._changes[change.name] = change
        self._size_bytes += change.size_bytes
        while self._size_bytes > self._max_bytes and len(self._changes) > 1:
            self._drop(next(iter(self._changes)))
            self.forgotten_count += 1

    def _drop(self, name: Name) -> None:
        self._size_bytes -= self._changes.pop(name).size_bytes
