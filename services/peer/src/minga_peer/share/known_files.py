"""Files whose digests are known, and whether they count: a file that may have other bytes is hashed again.

A file is known from the index, from hashing or from a download, and stays so while it is not there, so that one that
comes back as it was is not hashed again.
"""

from collections.abc import Iterable, Mapping, Sequence

from minga_core.ids import ContentId
from minga_core.manifest import Manifest
from minga_core.names import Name
from minga_core.records import PUBLISH, Published, RowKey, publish_as_of
from minga_engine.parts.files import Fingerprint
from minga_peer.share.damaged import DamagedFiles
from minga_peer.share.hashed import Hashed
from minga_peer.share.index import Index
from minga_peer.share.indexed_file import IndexedFile
from minga_peer.share.inventory import Inventory
from minga_peer.share.root import FoundFile

MAX_ABSENT = 100_000
"""Digests kept for files that are not there now and may come back unchanged (a folder that was not mounted)."""


class KnownFiles:
    """The known files of a shared folder, by name. Only for the event loop's thread."""

    def __init__(self, index: Index, damaged: DamagedFiles, inventory: Inventory) -> None:
        self._index = index
        self._damaged = damaged
        self._inventory = inventory
        self.unsure: set[Name] = set()
        """Those of them that may have other bytes by now, and are hashed before they are shared again."""

    async def load(self) -> None:
        """Read the index. Raises as `Index.open`."""
        known = self._inventory.unshared
        known.update(await self._index.open())
        for name, file in known.items():
            if file.published_ns == PUBLISH:
                as_of_ns = publish_as_of(file.fingerprint.changed_ns)
                known[name] = file.published(Published(as_of_ns, file.tag))

    def get(self, name: Name) -> IndexedFile | None:
        """The file of that name as it was hashed, whether or not it is shared. From any thread."""
        return self._inventory.files.get(name) or self._inventory.unshared.get(name)

    def intended(self, name: Name, content_id: ContentId) -> Published | None:
        """The time of publication of a file that was being put in place, and has no entry; None when it was not."""
        return self._index.intents.get(RowKey(name, content_id))

    def unchanged(self, found: FoundFile) -> IndexedFile | None:
        """The known file, if what was found is that file with the bytes that its digests are of."""
        file = self.get(found.name)
        return file if found.is_still(file) and found.name not in self.unsure else None

    def doubt(self, file: IndexedFile) -> None:
        """Have a file hashed before it is shared again: it may have other bytes than its digests are of."""
        known = self.get(file.name)
        if known is None or (known.content_id != file.content_id and file.name in self._inventory.unshared):
            self._inventory.unshared[file.name] = file
        self.unsure.add(file.name)

    def verified(self, files: Iterable[IndexedFile]) -> None:
        """Note that all bytes of files that are about to be shared were hashed or compared just now."""
        for file in files:
            self.unsure.discard(file.name)
            self._damaged.discard(file.name)

    def rotten(self, outcome: Hashed) -> IndexedFile | None:
        """The file as it was hashed before, when it has other bytes now and nothing else shows it."""
        before = self.get(outcome.found.name)
        if before is None or (before.path, before.fingerprint) != (outcome.found.path, outcome.fingerprint):
            return None
        return before if before.content_id != outcome.content_id else None

    async def recall(self, batch: Sequence[FoundFile]) -> list[Hashed]:
        """The outcomes of files whose digests are known by another name: of the inode, if nothing has changed it since.

        So nothing of a folder that is renamed is hashed again, but what may have other bytes than are known.
        """
        known: dict[Fingerprint, dict[ContentId, Manifest]] = {}
        doubtful: set[Fingerprint] = set()
        for name, fingerprint, content_id, manifest in await self._index.with_fingerprints(
            [found.fingerprint for found in batch]
        ):
            known.setdefault(fingerprint, {})[content_id] = manifest
            if not self._is_trusted(name, fingerprint):
                doubtful.add(fingerprint)
        outcomes: list[Hashed] = []
        for found in batch:
            manifests = known.get(found.fingerprint, {})
            if len(manifests) == 1 and found.fingerprint not in doubtful:
                ((content_id, manifest),) = manifests.items()
                outcomes.append(Hashed(found, manifest, content_id, found.fingerprint, recalled=True))
        return outcomes

    def _is_trusted(self, name: Name, fingerprint: Fingerprint) -> bool:
        """Whether the digests of a known file count, or the file is to be hashed again."""
        file = self.get(name)
        doubtful = name in self.unsure or self._damaged.get(name) is not None
        return file is not None and file.fingerprint == fingerprint and not doubtful

    async def bound_absent(self, found: Mapping[Name, object]) -> None:
        """Forget the digests of files that are neither found by a scan nor shared, beyond MAX_ABSENT."""
        # A dictionary from which much was removed is as large as ever.
        self._inventory.unshared = unshared = dict(self._inventory.unshared)
        if len(unshared) > MAX_ABSENT:
            absent = [name for name in unshared if name not in found]
            await self.forget(absent[MAX_ABSENT:])

    async def forget(self, names: Sequence[Name]) -> None:
        """Forget digests, also in the index."""
        for name in names:
            self._inventory.unshared.pop(name, None)
            self.unsure.discard(name)
        await self._index.write(remove=names)
