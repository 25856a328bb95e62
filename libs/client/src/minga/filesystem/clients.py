"""The clients of one file system: a client belongs to one event loop, and fsspec may use several."""

import asyncio
import os
from collections.abc import Callable, Coroutine
from typing import Any

from minga.async_client import AsyncClient

_OF_PARENTS: list[object] = []
"""Kept in a child process: what would be finalised closes descriptors, and an epoll that parent and child share."""


class LoopClients:
    """Clients with the same settings, one for each event loop that asks. A forked child has another loop."""

    def __init__(self, make: Callable[[], AsyncClient]) -> None:
        self._make = make
        self._pid = os.getpid()
        self._opening: dict[asyncio.AbstractEventLoop, asyncio.Task[AsyncClient]] = {}

    async def current(self) -> AsyncClient:
        """The client of the running loop. Raises MingaError when the settings are wrong, or credentials have ended."""
        loop = asyncio.get_running_loop()
        opening = self._opening.get(loop)
        if opening is None or (opening.done() and (opening.cancelled() or opening.exception())):
            # A loop that is closed cannot close its client any more.
            self._opening = {key: task for key, task in self._opening.items() if not key.is_closed()}
            opening = self._opening[loop] = loop.create_task(self._open(), name="open client")
        return await asyncio.shield(opening)

    async def _open(self) -> AsyncClient:
        return await self._make().__aenter__()

    async def aclose(self) -> None:
        """Close the client of the running loop; the next use opens another."""
        opening = self._opening.pop(asyncio.get_running_loop(), None)
        if opening is not None:
            await (await opening).aclose()

    def abandon(self) -> None:
        """Close all of them without waiting. For finalisers, which run in any thread."""
        if self._pid != os.getpid():
            keep_of_parent(self)
            return
        for loop, opening in self._opening.items():
            if not loop.is_closed():
                begin(loop, _close(opening))


async def _close(opening: "asyncio.Task[AsyncClient]") -> None:
    await (await opening).aclose()


def begin(loop: asyncio.AbstractEventLoop | None, work: Coroutine[Any, Any, object]) -> None:
    """Run it without waiting, in a loop of any thread; not at all when the loop does not run any more."""
    if loop is not None and loop.is_running():
        asyncio.run_coroutine_threadsafe(work, loop)
    else:
        work.close()


def keep_of_parent(thing: object) -> None:
    """Keep what a child process got from its parent from being finalised there."""
    _OF_PARENTS.append(thing)
