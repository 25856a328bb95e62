"""How many gRPC calls of each kind a peer serves at once; chunks have serving slots of their own (`serving`).

A call whose responses are not read keeps its slot: gRPC cannot end it before they are, and keeps them in memory.
"""

from minga_peer.serve.serving import RETRY_AFTER
from minga_runtime.quotas import Quota

MIB = 1024 * 1024


class Quotas:
    """Quotas of calls in flight, in all and of each host."""

    def __init__(
        self,
        *,
        manifests: int = 256,
        file_calls: int = 256,
        uploads: int = 512,
        upload_bytes: int = 512 * MIB,
        replicas: int = 512,
    ) -> None:
        self.manifests = Quota("manifests", manifests)
        """Each up to 32 MiB of memory."""
        self.file_calls = Quota("calls for small files", file_calls, retry_after=RETRY_AFTER)
        """Each reads up to 512 KiB ahead."""
        self.uploads = Quota("uploads", uploads)
        """`minga put` makes 32 of small files at a time."""
        self.upload_bytes = Quota("bytes of uploads", upload_bytes)
        """Memory: of each its manifest, and the chunk that is being put together."""
        self.replicas = Quota("replicas", replicas)
