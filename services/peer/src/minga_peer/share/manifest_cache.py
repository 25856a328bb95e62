"""Manifests in memory, so that serving a content does not read its digests from the disk each time."""

from collections import OrderedDict

from minga_core.ids import ContentId
from minga_core.manifest import Manifest

MAX_CACHED_BYTES = 64 * 1024 * 1024
"""Bound of all manifests in memory; the largest single one has half of this."""
_MANIFEST_OVERHEAD_BYTES = 512
"""What a cached manifest takes besides its digests: objects, keys, links."""


class ManifestCache:
    """The most recently used manifests. Only for the event loop's thread."""

    def __init__(self, max_bytes: int = MAX_CACHED_BYTES) -> None:
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
        """Keep a manifest, and drop the least recently used ones that do not fit any more."""
        if content_id in self._manifests:
            return
        self._manifests[content_id] = manifest
        self._size_bytes += len(manifest.digests) + _MANIFEST_OVERHEAD_BYTES
        while self._size_bytes > self._max_bytes and len(self._manifests) > 1:
            _, oldest = self._manifests.popitem(last=False)
            self._size_bytes -= len(oldest.digests) + _MANIFEST_OVERHEAD_BYTES
