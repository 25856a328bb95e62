"""The first scan of a run, which finds files that appeared while nobody looked.

The one that makes the index, anew if it was lost, finds what was there before: that is not published. What was written
since the peer has started is new, although that scan finds it too. Of what a later one finds it is not known whether it
is new: the peer may have published it, and been killed on a full disk before it could keep that. So a version that is
known keeps its time, and another one is published as of the file's last change: what others have published since stays
newer.
"""

import asyncio

from minga_core.names import Name
from minga_core.records import FOUND, PUBLISH, publish_as_of
from minga_engine.parts.files import Fingerprint
from minga_peer.share.file_clock import FileClock
from minga_peer.share.index import Index
from minga_peer.share.root import FoundFile


class FirstScan:
    """What the first scan has found and is not hashed yet. Only for the event loop's thread."""

    def __init__(self, index: Index, file_clock: FileClock) -> None:
        """file_clock: measured when the peer started."""
        self._index = index
        self._file_clock = file_clock
        self._modified_ns: dict[Name, int] = {}
        self.done = asyncio.Event()
        """Set once a scan of this run has ended: everything known from before is shared."""

    def add(self, found: FoundFile) -> None:
        """Note a file that is queued to be hashed, if this is the first scan."""
        if not self.done.is_set():
            self._modified_ns[found.name] = found.fingerprint.modified_ns

    def published_ns(self, name: Name, fingerprint: Fingerprint, *, known: bool) -> int:
        """What a content of which nothing is known has in place of a time of publication. known: whether another one
        had the name."""
        if self._modified_ns.get(name) != fingerprint.modified_ns:
            # It appeared, or was written to, since.
            return PUBLISH
        was_there = not (known or self._index.complete or self._file_clock.is_since_measured(fingerprint.modified_ns))
        return FOUND if was_there else publish_as_of(fingerprint.changed_ns)

    def forget(self, name: Name) -> None:
        """Note that a file was hashed or is gone. No error when the scan did not find it."""
        self._modified_ns.pop(name, None)

    async def check_complete(self) -> None:
        """Note in the index when all files of the first scan have been hashed."""
        if self._modified_ns or not self.done.is_set():
            return
        # A dictionary from which everything was removed is as large as ever.
        self._modified_ns.clear()
        if not self._index.complete:
            await self._index.set_complete()
        await self._index.forget_intents()
