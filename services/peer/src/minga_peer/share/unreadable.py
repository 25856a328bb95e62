"""Files that could not be read: tried again with scans, ever more seldom while they stay as they are.

An attempt at a large file with one bad sector costs as much as hashing it.
"""

from collections.abc import Container
from dataclasses import dataclass

from minga_core.names import Name
from minga_peer.share.root import FoundFile

MAX_SKIPPED_SCANS = 287
"""Between two attempts: a day, as scans come by default."""


@dataclass(slots=True)
class _Unreadable:
    found: FoundFile
    failure_count: int = 0
    scans_to_skip: int = 0


class UnreadableFiles:
    """The files, by name. Only for the event loop's thread."""

    def __init__(self) -> None:
        self._files: dict[Name, _Unreadable] = {}

    def failed(self, found: FoundFile) -> None:
        """Note a failure: the next scan tries again; then one scan is skipped, then three, seven, …"""
        unreadable = self._files.get(found.name)
        if unreadable is None or unreadable.found != found:
            unreadable = self._files[found.name] = _Unreadable(found)
        unreadable.failure_count += 1
        unreadable.scans_to_skip = min((1 << min(unreadable.failure_count - 1, 16)) - 1, MAX_SKIPPED_SCANS)

    def may_try(self, found: FoundFile) -> bool:
        """Whether a scan that has found a file has it hashed. A change, that of its mode too, has it tried at once."""
        unreadable = self._files.get(found.name)
        if unreadable is None or unreadable.found != found:
            return True
        unreadable.scans_to_skip -= 1
        return unreadable.scans_to_skip < 0

    def forget(self, name: Name) -> None:
        """Forget a file that was read. No error when there is none of that name."""
        self._files.pop(name, None)

    def keep(self, names: Container[Name]) -> None:
        """Forget files that are not there any more."""
        self._files = {name: each for name, each in self._files.items() if name in names}
