"""What a store counts."""

from typing import Protocol


class StoreMetrics(Protocol):
    """What sharing a folder counts."""

    def hash_cache_hits(self, count: int) -> None:
        """Count files whose digests the index knew."""

    def hash_cache_misses(self, count: int) -> None:
        """Count files that had to be hashed."""

    def hashed_bytes(self, count: int) -> None:
        """Count bytes hashed."""

    def scrubbed_bytes(self, count: int) -> None:
        """Count bytes that the scrub has read and compared."""

    def chunk_rechecked(self, *, good: bool) -> None:
        """Count a chunk that a downloader refused as wrong, and that was read again here."""
