"""Small contents for other peers: many in one request, read in groups, each of which is one piece to send."""

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass

from minga_core.errors import BusyError
from minga_core.ids import ContentId
from minga_engine.wire.groups import LAST_GROUP, MAX_GROUP_BYTES, encode_group
from minga_peer.serve.serving import ServingMetrics
from minga_peer.share.small_store import SmallFiles
from minga_runtime.quotas import Quota
from minga_runtime.rate_limit import RateLimit


@dataclass(frozen=True, slots=True)
class SmallServing:
    """What requests for small contents read from, count in, and are limited by."""

    files: SmallFiles
    metrics: ServingMetrics
    up: RateLimit
    calls: Quota
    """Each reads a group ahead."""

    @contextmanager
    def slot(self, caller: str) -> Iterator[None]:
        """A slot for a request, to the end of the block. Raises BusyError when there is none."""
        try:
            self.calls.acquire(caller)
        except BusyError:
            self.metrics.busy()
            raise
        try:
            yield
        finally:
            self.calls.release(caller)

    async def groups(self, content_ids: Sequence[ContentId]) -> AsyncGenerator[bytes, None]:
        """Those of the contents that are here, encoded, to be sent one after the other."""
        async with aclosing(self.files.read(content_ids, self.up.piece_bytes(MAX_GROUP_BYTES))) as groups:
            async for group in groups:
                size_bytes = sum(len(data) for _, data in group)
                await self.up.take(size_bytes)
                yield encode_group(group)
                self.metrics.sent(size_bytes, complete=True)
        yield LAST_GROUP
