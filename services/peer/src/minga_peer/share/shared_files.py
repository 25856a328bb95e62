"""What others do to shared files: downloads put them in place, verifying finds them good or not, people remove them.

Each change goes to the index, the known files and the inventory together; no other module keeps these in step.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from minga_core.attributes import FileAttributes
from minga_core.manifest import Manifest
from minga_core.records import PUBLISH, FileRow, Published, RowKey, publish_as_of
from minga_engine.parts.part import Part
from minga_peer.share.first_scan import FirstScan
from minga_peer.share.hash_queue import HashQueue
from minga_peer.share.indexed_file import IndexedFile
from minga_peer.share.root import FoundFile
from minga_peer.share.shared_folder import SharedFolder


class SharedFiles:
    """The shared and damaged files of a folder. Only for the event loop's thread."""

    def __init__(self, folder: SharedFolder, queue: HashQueue, first: FirstScan) -> None:
        self._folder = folder
        self._inventory = folder.inventory
        self._known = folder.known
        self._damaged = folder.damaged
        self._queue = queue
        self._first = first

    def hash_again(self, file: IndexedFile) -> None:
        """Stop sharing a file that may not be what was hashed, and hash it once it has settled.

        With other bytes under the same fingerprint it is damaged: no program has written them.
        """
        if file.path in self._folder.placing:
            return
        if self._inventory.files.get(file.name) == file:
            self._inventory.update(remove=[file.name])
        self._known.doubt(file)
        self._queue.put_changed(FoundFile(file.name, file.path, file.fingerprint))

    def refuse_damaged(self, file: IndexedFile, why: str) -> None:
        """Stop sharing a file whose bytes are not what was hashed; it stays on disk. why: see DamagedFile."""
        if self._folder.shared_or_damaged(file.name) == file:
            self._damaged.add(file, why)
            self._inventory.update(remove=[file.name])

    def share_again(self, file: IndexedFile) -> None:
        """Share a file that was damaged and that has been found to be good: all of it was read."""
        if self._damaged.get(file.name) == file:
            self._damaged.discard(file.name)
            self._inventory.update(put=[file])

    @contextmanager
    def placing(self, *paths: str) -> Iterator[None]:
        """Ignore changes of paths inside the block, which moves downloads there and shares them."""
        self._folder.placing.update(paths)
        try:
            yield
        finally:
            self._folder.placing.difference_update(paths)

    async def intend(self, files: Mapping[RowKey, Published]) -> None:
        """Keep which files are about to be put in place, with their times of publication: a copy of an old version that
        a crash left without an entry would else be taken for a new file. Raises as `Index.intend`."""
        await self._folder.index.intend(files)

    async def share_placed(self, files: list[tuple[IndexedFile, Manifest]], part: Part | None = None) -> None:
        """Share files that downloads have put in place; the part that became one goes in the same change.

        The index is written first: what others know of is never hashed again.
        """
        await self._folder.index.write(files, cached=True)
        self._known.verified(file for file, _ in files)
        self._inventory.update(put=[file for file, _ in files], drop_parts=[part] if part is not None else [])

    async def set_published(self, times: Sequence[tuple[FileRow, Published]]) -> None:
        """Keep the times of publication of shared files, each if the file still has the row that it had."""
        changed = self._with_times(times)
        # Written first: what others know of is not asked for again.
        await self._folder.index.set_published([file for _, file in changed])
        self._change_times(changed)

    async def publish_again(self, row: FileRow, ticket: bytes) -> FileRow:
        """Have a shared file published, if it still has that row; its row now. A restart asks for it as of now."""
        self._change_times(self._with_times([(row, Published(PUBLISH, ticket))]))
        asked = row._replace(published_ns=PUBLISH, tag=ticket)
        now = Published(publish_as_of(self._folder.file_clock.now_ns()), ticket)
        await self._folder.index.set_published([file for _, file in self._with_times([(asked, now)])])
        return asked

    def _with_times(self, times: Sequence[tuple[FileRow, Published]]) -> list[tuple[IndexedFile, IndexedFile]]:
        """Those files that still have the rows that they had, each as it is and with another time of publication."""
        table = self._inventory.table
        found = [(self._inventory.files.get(row.key.name), row, published) for row, published in times]
        return [
            (file, file.published(published))
            for file, row, published in found
            if file is not None and file.content_id == row.key.content_id and table.get(row.key) == row
        ]

    def _change_times(self, changed: Sequence[tuple[IndexedFile, IndexedFile]]) -> None:
        """Replace files by the same ones with other times, each unless it was replaced meanwhile."""
        files = [file for before, file in changed if self._inventory.files.get(file.name) is before]
        self._inventory.set_published(files)

    async def set_attributes(self, row: FileRow, attributes: FileAttributes) -> FileRow:
        """Give a shared file attributes, if it still is what that row says; its row then."""
        file = self._inventory.files.get(row.key.name)
        if file is None or file.row != row or file.fingerprint.attributes == attributes:
            return row
        manifest, root = await self._folder.index.manifest(file), self._folder.root
        with self.placing(file.path):
            fingerprint = await self._folder.disk.run(root.set_attributes, file.path, file.fingerprint, attributes)
            if fingerprint is None or manifest is None:
                return row
            changed = file.changed(fingerprint)
            await self.share_placed([(changed, manifest)])
        return changed.row

    async def forget_removed(self, file: IndexedFile) -> None:
        """Stop sharing a file that was deleted on purpose, and forget its digests."""
        self._queue.drop(file.name)
        self._first.forget(file.name)
        if self._folder.shared_or_damaged(file.name) == file:
            self._inventory.update(remove=[file.name])
            self._damaged.discard(file.name)
            await self._known.forget([file.name])
