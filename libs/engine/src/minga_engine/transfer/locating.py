"""Finding out what a name means now, who has it, and its manifest."""

import asyncio
import logging
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from minga_core.errors import (
    FileNotFoundInDirectoryError,
    InvalidManifestError,
    MingaError,
    NotFoundError,
)
from minga_core.ids import ContentId, PeerId
from minga_core.manifest import Manifest
from minga_core.names import Name
from minga_core.records import FOUND, PUBLISH, HoldingState
from minga_engine.wire.locator import FileAnswer, FileVersion, LocatorClient
from minga_engine.wire.messages import SourceAddress
from minga_engine.wire.transport import Transport
from minga_runtime.logs import log_event

log = logging.getLogger(__name__)

MANIFEST_HEDGE_SECONDS = 0.5
"""A source that has not given the manifest after this long is joined by the next one."""


class VersionReplacedError(FileNotFoundInDirectoryError):
    """Nobody has that version whole any more, and the name has one that was published later."""


@dataclass(frozen=True, slots=True)
class Located:
    """A version of a file and the peers that have it."""

    name: Name
    content_id: ContentId
    size_bytes: int
    published_ns: int
    """Or FOUND: not known."""
    sources: list[SourceAddress]


class Directory:
    """Look-ups of downloads at the locator."""

    def __init__(self, locator: LocatorClient, *, own_id: PeerId | None = None, zone: str = "") -> None:
        self._locator = locator
        self._own_id = own_id
        self._zone = zone

    async def locate(self, name: Name, content_id: ContentId | None = None) -> Located:
        """The newest version of a name, or the one of that content.

        Raises FileNotFoundInDirectoryError, LocatorUnavailableError.
        """
        answer: FileAnswer = await self._locator.find_file(name, content_id)
        if not answer.versions:
            raise FileNotFoundInDirectoryError(f"nobody shares {name}")
        return self._located(name, answer.versions[0])

    async def locate_newest(self, names: Sequence[Name]) -> list[Located]:
        """The newest versions of those names that somebody shares, with some of their sources.

        Raises LocatorUnavailableError.
        """
        found = await self._locator.find_newest(names)
        return [self._located(name, version) for name, version in found.items()]

    async def sources(self, content_id: ContentId) -> list[SourceAddress]:
        """Peers that have, or are getting, a content; empty when there are none. Raises LocatorUnavailableError."""
        try:
            answer = await self._locator.find_content(content_id)
        except NotFoundError:
            return []
        return self._sources(answer.version)

    def _located(self, name: Name, version: FileVersion) -> Located:
        # A copy publishes nothing, even of a version that has no time yet.
        published_ns = version.published_ns if version.published_ns > PUBLISH else FOUND
        return Located(name, version.content_id, version.size_bytes, published_ns, self._sources(version))

    def _sources(self, version: FileVersion) -> list[SourceAddress]:
        return [
            SourceAddress(
                source.peer_id,
                source.address,
                complete=source.state is HoldingState.COMPLETE,
                same_zone=bool(self._zone) and source.zone == self._zone,
            )
            for source in version.sources
            if source.peer_id != self._own_id
        ]


class ManifestFetcher:
    """Fetches manifests from the sources of a content."""

    def __init__(self, transport: Transport, rng: random.Random | None = None) -> None:
        self._transport = transport
        self._rng = rng or random.Random()  # noqa: S311 - order, not secrets

    async def fetch(self, content_id: ContentId, sources: Iterable[SourceAddress]) -> Manifest | None:
        """The manifest, checked against its id, or None when no source gives it now.

        Asks one source after the other, the next one early when the last is slow; takes the first good answer.
        """
        order = list(sources)
        self._rng.shuffle(order)
        pending: set[asyncio.Task[Manifest | None]] = set()
        try:
            while order or pending:
                if order:
                    source = order.pop()
                    pending.add(asyncio.create_task(self._ask(content_id, source), name=f"manifest-{content_id.short}"))
                done, pending = await asyncio.wait(
                    pending,
                    timeout=MANIFEST_HEDGE_SECONDS if order else None,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                for task in done:
                    if (manifest := task.result()) is not None:
                        return manifest
            return None
        finally:
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)

    async def _ask(self, content_id: ContentId, source: SourceAddress) -> Manifest | None:
        try:
            return await self._transport.manifest(source, content_id)
        except InvalidManifestError as error:
            log_event(log, logging.WARNING, "manifest_refused", source=source.peer_id, error=error)
        except MingaError as error:
            log_event(log, logging.DEBUG, "manifest_not_given", source=source.peer_id, error=error)
        return None
