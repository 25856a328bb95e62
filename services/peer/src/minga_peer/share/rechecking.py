"""Looking again at what is held when others refuse it: a disk may change what no program has changed."""

import asyncio

from minga_core.ids import ContentId
from minga_peer.share.folder_sync import FolderSync
from minga_peer.share.shared_folder import SharedFolder

RECHECK_SECONDS = 600.0
"""A content is read again at most so often: anybody may claim that it was wrong."""


class Rechecker:
    """Rechecks one content at a time. Only for the event loop's thread."""

    def __init__(self, folder: SharedFolder, sync: FolderSync) -> None:
        self._folder = folder
        self._sync = sync
        self._turn = asyncio.Lock()
        self._begun: dict[ContentId, float] = {}

    async def recheck(self, content_id: ContentId) -> None:
        """See `ContentStore.recheck`."""
        now = self._folder.clock.monotonic()
        self._begun = {one: at for one, at in self._begun.items() if now - at < RECHECK_SECONDS}
        inventory = self._folder.inventory
        if content_id in self._begun or inventory.held(content_id) is None:
            return
        self._begun[content_id] = now
        async with self._turn:
            if (part := inventory.part_with(content_id)) is not None:
                await part.recheck()
            for file in inventory.files_with(content_id):
                await self._sync.verify(file)
