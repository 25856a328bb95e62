"""What a peer lets callers have at once, beside chunks, whose turns are given by `swarm.uploads`.

Not here: calls whose answers nobody takes. gRPC cannot end one before what was written is taken, and keeps that in
memory; so they keep their slots, and the shares keep them few.
"""

from minga_runtime.shares import Shares

MIB = 1024 * 1024


class Capacity:
    """Shares of all that callers may do here at the same time."""

    def __init__(
        self,
        *,
        manifests: int = 256,
        watches: int = 4096,
        uploads: int = 512,
        upload_bytes: int = 512 * MIB,
        replicas: int = 512,
    ) -> None:
        self.manifests = Shares("manifests", manifests)
        """Each up to 32 MiB of memory."""
        self.watches = Shares("watches", watches)
        """A download has one at each of its sources."""
        self.uploads = Shares("uploads", uploads)
        """`minga put` makes 32 of small files at a time."""
        self.upload_bytes = Shares("bytes of uploads", upload_bytes)
        """Memory: of each its manifest, and the chunk that is being put together."""
        self.replicas = Shares("replicas", replicas)
