"""Shares what was hashed, unless it is damaged, was replaced meanwhile, or could not be read."""

from minga_core.ids import ContentId
from minga_core.manifest import Manifest
from minga_core.names import ORIGINS_PREFIX, Name
from minga_core.records import PUBLISH, Published
from minga_engine.parts.files import Fingerprint
from minga_peer.share.conditions import Kind
from minga_peer.share.file_conditions import FileConditions
from minga_peer.share.first_scan import FirstScan
from minga_peer.share.hashed import Hashed
from minga_peer.share.indexed_file import IndexedFile
from minga_peer.share.root import shown
from minga_peer.share.shared_folder import SharedFolder
from minga_peer.share.store_metrics import StoreMetrics
from minga_peer.share.unreadable import UnreadableFiles


class HashOutcomes:
    """Takes what the hash queue found out. Only for the event loop's thread."""

    def __init__(
        self, folder: SharedFolder, first: FirstScan, unreadable: UnreadableFiles, metrics: StoreMetrics | None
    ) -> None:
        self._folder = folder
        self._inventory = folder.inventory
        self._known = folder.known
        self._first = first
        self._unreadable = unreadable
        self._metrics = metrics
        self._of_files = FileConditions(folder.conditions)

    async def share(self, outcomes: list[Hashed]) -> set[str]:
        """Share what was hashed; the paths of files that changed meanwhile and must be looked at again."""
        files: list[tuple[IndexedFile, Manifest]] = []
        again: set[str] = set()
        for outcome in outcomes:
            if self._folder.root.hidden.file(outcome.found.path):
                continue
            if outcome.problem:
                self._refuse(outcome, Kind.UNREADABLE, outcome.problem)
            elif outcome.manifest is None or self._is_outdated(outcome):
                again.add(outcome.found.path)
                if outcome.manifest is None:
                    self._of_files.changing(outcome.found.path)
            elif (rotten := self._known.rotten(outcome)) is not None:
                self._keep_out(rotten)
            elif self._is_no_origins_file(outcome):
                line = f"{shown(outcome.found.path)} is where only what was fetched may be: under {ORIGINS_PREFIX}"
                self._refuse(outcome, Kind.BAD_NAME, line)
            else:
                files.append((self._indexed(outcome), outcome.manifest))
        self._count([outcome for outcome in outcomes if outcome.manifest is not None])
        return again | await self._share_hashed(files)

    def _count(self, outcomes: list[Hashed]) -> None:
        if self._metrics is not None:
            hashed = [outcome for outcome in outcomes if not outcome.recalled]
            self._metrics.hash_cache_hits(len(outcomes) - len(hashed))
            self._metrics.hash_cache_misses(len(hashed))
            self._metrics.hashed_bytes(sum(outcome.manifest.size_bytes for outcome in hashed if outcome.manifest))

    async def _share_hashed(self, files: list[tuple[IndexedFile, Manifest]]) -> set[str]:
        """Share files; the paths of those that were removed or replaced while the index was written."""
        before = {file.name: self._inventory.files.get(file.name) for file, _ in files}
        files = [(file, manifest) for file, manifest in files if before[file.name] != file]
        if files:
            await self._folder.index.write(files)
        current = [file for file, _ in files if self._inventory.files.get(file.name) is before[file.name]]
        self._known.verified(current)
        self._inventory.update(put=current)
        for file in current:
            self._of_files.hashed(file.path)
            self._unreadable.forget(file.name)
        return {file.path for file, _ in files} - {file.path for file in current}

    def _keep_out(self, rotten: IndexedFile) -> None:
        self._inventory.update(remove=[rotten.name])
        self._folder.damaged.add(rotten, "its bytes are not what was hashed")

    def _is_outdated(self, outcome: Hashed) -> bool:
        """Whether a download has been put there since the file was opened for hashing."""
        path, shared = outcome.found.path, self._inventory.files.get(outcome.found.name)
        newer = shared is not None and shared.path == path and shared.fingerprint != outcome.fingerprint
        return newer or path in self._folder.placing

    def _is_no_origins_file(self, outcome: Hashed) -> bool:
        """Whether somebody has put or changed a file where only what was fetched may be."""
        name, content_id = outcome.found.name, outcome.content_id
        if not name.startswith(ORIGINS_PREFIX) or content_id is None:
            return False
        before = self._known.get(name)
        was_fetched = before is not None and before.content_id == content_id
        return not was_fetched and self._known.intended(name, content_id) is None

    def _refuse(self, outcome: Hashed, kind: Kind, line: str) -> None:
        found = outcome.found
        self._of_files.refuse(kind, found.path, line)
        self._unreadable.failed(found)
        if found.name in self._inventory.files:
            self._inventory.update(remove=[found.name])

    def _indexed(self, outcome: Hashed) -> IndexedFile:
        """A file's entry."""
        found, content_id, fingerprint = outcome.found, outcome.content_id, outcome.fingerprint
        if content_id is None or fingerprint is None:
            raise ValueError(f"{found.path} was not hashed")
        published = self._published(found.name, content_id, fingerprint)
        return IndexedFile(found.name, found.path, fingerprint, content_id, *published)

    def _published(self, name: Name, content_id: ContentId, fingerprint: Fingerprint) -> Published:
        """When a file was published. Touching it publishes nothing, and neither does an index that was lost."""
        before = self._known.get(name)
        if before is not None and before.content_id == content_id:
            return Published(before.published_ns, before.tag)
        # A time that was not known when the file was put in place is not known now.
        intended_ns, tag = self._known.intended(name, content_id) or Published(PUBLISH)
        found_ns = intended_ns or self._first.published_ns(name, fingerprint, known=before is not None)
        return Published(found_ns, tag)
