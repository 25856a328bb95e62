"""Waiting until the locator names the holders of a file that was put."""

import asyncio
from dataclasses import dataclass
from datetime import timedelta

from minga_core.clock import Clock
from minga_core.errors import LocatorUnavailableError, NameTakenError, NotFoundError
from minga_core.ids import ContentId
from minga_core.names import Name
from minga_engine.transfer.put_request import PutRequest
from minga_engine.wire.locator import LocatorClient
from minga_engine.wire.locator_answers import FileVersion

VISIBLE_LIMIT = timedelta(seconds=30)
"""How long an upload waits until the locator names every holder."""
VISIBLE_POLL_SECONDS = 0.05
REPLACED_SECONDS = 2.0
"""A file that was stored and is not named after this is found to be replaced, if another is the newest."""


@dataclass(frozen=True, slots=True)
class Visibility:
    """What the locator says of names that are put."""

    locator: LocatorClient
    clock: Clock

    async def versions(self, name: Name, content_id: ContentId | None = None) -> list[FileVersion]:
        """Those of a name, the newest first; none when the locator knows none. content_id: that one alone."""
        try:
            return list((await self.locator.find_file(name, content_id)).versions)
        except NotFoundError:
            return []

    async def wait(self, request: PutRequest, published_before_ns: int, before: list[FileVersion]) -> None:
        """Returns when the locator names every holder, and the file as the newest version of its name.

        before: the versions of the name before the upload. Raises NameTakenError when another was put meanwhile, and
        LocatorUnavailableError when it is not visible in time, or as the locator raises it.
        """
        stored_at = self.clock.monotonic()
        while not await self._is_visible(request, published_before_ns):
            waited_seconds = self.clock.monotonic() - stored_at
            if waited_seconds > REPLACED_SECONDS and await self._is_replaced(request, before):
                raise NameTakenError(
                    f"another content was put as {request.name} meanwhile, and has replaced this one",
                    hint="`minga info` shows it; the same command puts this one again",
                )
            if waited_seconds > VISIBLE_LIMIT.total_seconds():
                raise LocatorUnavailableError(
                    f"{request.name} is uploaded, but the directory does not name its holders yet",
                    hint="it will once the registry is reachable again; `minga info` shows it",
                )
            await asyncio.sleep(VISIBLE_POLL_SECONDS)

    async def _is_visible(self, request: PutRequest, published_before_ns: int) -> bool:
        # Pinned, so that the locator's short cache does not answer with what it said before the upload.
        pinned = await self.versions(request.name, request.file.content_id)
        if not pinned or pinned[0].complete_count < min(request.replicas, len(request.holders)):
            return False
        if not request.published:
            return True
        versions = await self.versions(request.name)
        if not versions or versions[0].content_id == request.file.content_id:
            return bool(versions)
        # Another may have been published meanwhile.
        return published_before_ns < pinned[0].published_ns < versions[0].published_ns

    async def _is_replaced(self, request: PutRequest, before: list[FileVersion]) -> bool:
        """Whether another content was published under the name since the upload began."""
        newest_ns = max((version.published_ns for version in before), default=0)
        return any(
            version.content_id != request.file.content_id and version.published_ns > newest_ns
            for version in await self.versions(request.name)
        )
