"""How many gRPC calls of each kind a peer serves at once, and how much it takes in a day; chunks have serving slots of
their own (`serving`).

A call whose responses are not read keeps its slot: gRPC cannot end it before they are, and keeps them in memory.
"""

from minga_peer.serve.serving import RETRY_AFTER
from minga_runtime.quotas import DailyQuota, Quota

MIB = 1024 * 1024


class Quotas:
    """Quotas of calls in flight, in all and of each caller; daily_upload_bytes: of each caller, None for no limit."""

    def __init__(
        self,
        *,
        manifests: int = 256,
        digests: int = 1024,
        file_calls: int = 256,
        uploads: int = 512,
        upload_bytes: int = 512 * MIB,
        replicas: int = 512,
        preheats: int = 32,
        daily_upload_bytes: int | None = None,
    ) -> None:
        self.manifests = Quota("manifests", manifests)
        """Each up to 32 MiB of memory."""
        self.digests = Quota("followers of digests", digests, retry_after=RETRY_AFTER)
        """Standing calls, of files that this peer fetches from origins."""
        self.file_calls = Quota("calls for small files", file_calls, retry_after=RETRY_AFTER)
        """Each reads up to 512 KiB ahead."""
        self.uploads = Quota("uploads", uploads)
        self.upload_bytes = Quota("bytes of uploads", upload_bytes)
        """Memory: of each its manifest, and the chunk that is being put together."""
        self.replicas = Quota("replicas", replicas)
        self.preheats = Quota("preheats", preheats)
        """Items that are fetched for others, each some files at a time."""
        self.uploaded = DailyQuota("uploads", daily_upload_bytes, "MINGA_UPLOAD_QUOTA")
        """Bytes that are taken over the network for a caller: of its uploads, and of replicas and preheats that it asks
        for."""
