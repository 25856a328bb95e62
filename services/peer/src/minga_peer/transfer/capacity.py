"""What a peer lets callers have at once, beside chunks, whose turns are given by `swarm.uploads`; and the end of calls
whose answers nobody takes."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, cast

from minga_runtime.shares import Shares

MIB = 1024 * 1024
STALL_SECONDS = 60.0
"""A caller that takes nothing of an answer (512 KiB at most) for so long is cut off: it may hold a turn."""


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


Handler = Callable[[Any, Any], AsyncGenerator[Any, None]]


def taken_or_cut(handler: Handler) -> Handler:
    """The same handler; its call ends when the caller takes nothing of an answer for so long."""

    async def call(request: Any, context: Any) -> AsyncGenerator[Any, None]:
        loop, task = asyncio.get_running_loop(), cast("asyncio.Task[Any]", asyncio.current_task())
        async with aclosing(handler(request, context)) as answers:
            async for answer in answers:
                # While we stand at the yield, the task waits for gRPC to take the message on.
                cut = loop.call_later(STALL_SECONDS, task.cancel)
                try:
                    yield answer
                finally:
                    cut.cancel()

    return call
