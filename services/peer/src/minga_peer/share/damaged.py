"""Damaged files: their bytes are not what was hashed, although their fingerprints are. No program has changed them.

They stay on disk and are not shared, neither as what they were nor as a new version. A file leaves this state when it
is changed, replaced or removed, or when all of it is found to be good again.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass

from minga_core.clock import Clock
from minga_core.names import Name
from minga_peer.share.conditions import Conditions, Kind
from minga_peer.share.indexed_file import IndexedFile
from minga_peer.share.root import FoundFile, shown
from minga_runtime.logs import log_event

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DamagedFile:
    """A file that is kept out, and why."""

    file: IndexedFile
    """As it was hashed."""
    why: str
    """A clause: `chunk 3 is not what was hashed`."""
    since: float
    """Unix time in seconds."""


class DamagedFiles:
    """The damaged files of a shared folder, by name. Only for the event loop's thread."""

    def __init__(self, clock: Clock, conditions: Conditions) -> None:
        self._clock = clock
        self._conditions = conditions
        self._files: dict[Name, DamagedFile] = {}
        self.revision = 0
        """Grows with each change."""

    def __len__(self) -> int:
        return len(self._files)

    def __iter__(self) -> Iterator[DamagedFile]:
        """Those that were found first come first."""
        return iter(list(self._files.values()))

    def get(self, name: Name) -> IndexedFile | None:
        """The damaged file of that name, as it was hashed."""
        damaged = self._files.get(name)
        return None if damaged is None else damaged.file

    def add(self, file: IndexedFile, why: str) -> None:
        """Keep a file out. It is logged once."""
        if self.get(file.name) != file:
            log_event(log, logging.ERROR, "file_damaged", name=file.name, content_id=file.content_id, why=why)
            self.load([DamagedFile(file, why, self._clock.wall())])

    def load(self, files: list[DamagedFile]) -> None:
        """Keep files out that were found damaged before."""
        for damaged in files:
            self._files[damaged.file.name] = damaged
            self._conditions.set(
                Kind.DAMAGED, f"{shown(damaged.file.path)} is damaged: {damaged.why}", damaged.file.name
            )
        self.revision += 1

    def keeps_out(self, found: FoundFile) -> bool:
        """Whether what was found is a damaged file as it was; one that has changed since is damaged no more."""
        file = self.get(found.name)
        if file is None or found.is_still(file):
            return file is not None
        self.discard(found.name)
        return False

    def discard(self, name: Name) -> None:
        """Keep a file out no longer. No error when it is not damaged."""
        if self._files.pop(name, None) is not None:
            self._conditions.clear(Kind.DAMAGED, name)
            log_event(log, logging.INFO, "file_damaged_no_more", name=name)
            self.revision += 1
