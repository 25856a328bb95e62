"""Manifests kept in memory: those served lately."""

from collections import OrderedDict

from minga_core.ids import ContentId
from minga_core.manifest import Manifest

MAX_DIGEST_BYTES = 64 * 1024 * 1024
"""Of all manifests together; the largest single one has half of this."""


class ManifestCache:
    """The most recently used manifests. Only for the event loop's thread."""

    def __init__(self, max_bytes: int = MAX_DIGEST_BYTES) -> None:
        self._max_bytes = max_bytes
        self._manifests: OrderedDict[ContentId, Manifest] = OrderedDict()
        self._size_bytes = 0

    def get(self, content_id: ContentId) -> Manifest | None:
        """The manifest, if it is here."""
        manifest = self._manifests.get(content_id)
        if manifest is not None:
            self._manifests.move_to_end(content_id)
        return manifest

    def put(self, content_id: ContentId, manifest: Manifest) -> None:
        """Keeps a manifest, and lets go of the least recently used ones that do not fit any more."""
        if content_id in self._manifests:
            return
        self._manifests[content_id] = manifest
        self._size_bytes += _size_of(manifest)
        while self._size_bytes > self._max_bytes and len(self._manifests) > 1:
            self._size_bytes -= _size_of(self._manifests.popitem(last=False)[1])


def _size_of(manifest: Manifest) -> int:
    # What an entry takes besides its digests: objects, keys, links.
    return len(manifest.digests) + 512
