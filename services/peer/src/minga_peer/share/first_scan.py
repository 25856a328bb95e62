"""The first scan of a folder: the files that it finds were there before anybody shared it, and are not published.

An index that is lost is made by a first scan too.
"""

import asyncio

from minga_core.names import Name
from minga_peer.share.index import Index
from minga_peer.share.root import FoundFile


class FirstScan:
    """What the first scan has found and is not hashed yet. Only for the event loop's thread."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._modified_ns: dict[Name, int] = {}
        self.done = asyncio.Event()
        """Set once a scan of this run has ended: everything known from before is shared."""

    def add(self, found: FoundFile) -> None:
        """Note a file that is queued to be hashed, if this is the scan that makes the index."""
        if not self._index.complete and not self.done.is_set():
            self._modified_ns[found.name] = found.fingerprint.modified_ns

    def has(self, name: Name, modified_ns: int) -> bool:
        """Whether a file was there when the index was made, and has not been written to since."""
        return self._modified_ns.get(name) == modified_ns

    def forget(self, name: Name) -> None:
        """Note that a file was hashed or is gone. No error when the scan did not find it."""
        self._modified_ns.pop(name, None)

    async def check_complete(self) -> None:
        """Note in the index when all files of the first scan have been hashed."""
        if not self._modified_ns and self.done.is_set() and not self._index.complete:
            await self._index.set_complete()
