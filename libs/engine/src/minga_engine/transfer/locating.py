"""Finding out what a name means now, who has it, and its manifest."""

import asyncio
import logging
import random
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from minga_core.attributes import NO_ATTRIBUTES, FileAttributes
from minga_core.clock import Clock
from minga_core.errors import (
    ContentChangedError,
    ContentNotHeldError,
    FileNotFoundInDirectoryError,
    InvalidManifestError,
    MingaError,
    NotFoundError,
)
from minga_core.ids import ContentId, PeerId
from minga_core.manifest import Manifest
from minga_core.names import Name
from minga_core.records import FOUND, PUBLISH, HoldingState
from minga_engine.wire.locator import LocatorClient
from minga_engine.wire.locator_answers import FileAnswer, FileVersion
from minga_engine.wire.messages import SourceAddress
from minga_engine.wire.transport import Transport
from minga_runtime.logs import log_event

log = logging.getLogger(__name__)

MANIFEST_HEDGE_SECONDS = 0.5
"""A source that has not given the manifest after this long is joined by the next one."""


MAX_SHOWN_HOLDERS = 3
"""Peers that a message names."""
REMOVED_SECONDS = 10.0
"""How long all holders must be known to have removed a version before it counts as gone: above what a file that was
only touched takes to be hashed again, in the common case."""


class VersionGoneError(FileNotFoundInDirectoryError):
    """Nobody has that version whole any more: the name has one that was published later, or all holders removed it."""


class Located(NamedTuple):
    """A version of a file and the peers that have it."""

    name: Name
    content_id: ContentId
    size_bytes: int
    published_ns: int
    """Or FOUND: not known."""
    sources: list[SourceAddress]
    attributes: FileAttributes = NO_ATTRIBUTES
    tag: bytes = b""
    """The proof of published_ns."""


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

    async def locate_content(self, content_id: ContentId) -> Located:
        """A content, under one of its names. Raises FileNotFoundInDirectoryError, LocatorUnavailableError."""
        answer = await self._locator.find_content(content_id)
        if not answer.names:
            raise FileNotFoundInDirectoryError(f"nobody shares {content_id}")
        return self._located(answer.names[0], answer.version)

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
        attributes = FileAttributes(version.modified_ns, version.executable)
        sources = self._sources(version)
        return Located(name, version.content_id, version.size_bytes, published_ns, sources, attributes, version.tag)

    def _sources(self, version: FileVersion) -> list[SourceAddress]:
        return [
            SourceAddress(
                source.peer_id,
                source.address,
                complete=source.state is HoldingState.COMPLETE,
                same_zone=bool(self._zone) and source.zone == self._zone,
                listed=True,
            )
            for source in version.sources
            if source.peer_id != self._own_id
        ]


class SourceFinder:
    """Finds the sources of one version for as long as somebody may have it."""

    def __init__(self, directory: Directory, located: Located, clock: Clock) -> None:
        self._directory = directory
        self._located = located
        self._clock = clock
        self._holders = {source.peer_id for source in located.sources if source.complete}
        self._refused: set[PeerId] = set()
        self._removed_since: float | None = None

    async def find(self, refused: Collection[PeerId] = ()) -> list[SourceAddress]:
        """Peers that have the version now. refused: those that answered that they do not have it.

        Raises VersionGoneError, LocatorUnavailableError.
        """
        found = await self._directory.sources(self._located.content_id)
        holders = {source.peer_id for source in found if source.complete}
        self._holders |= holders
        self._refused = (self._refused | set(refused)) - holders
        # A replica is asked for while nobody has the file whole yet.
        if self._holders and not holders:
            await self._check_replaced()
        self._check_removed(removed=bool(self._holders) and self._holders <= self._refused)
        return found

    async def _check_replaced(self) -> None:
        """Raises VersionGoneError. A name without a later version may have holders that restart."""
        located = self._located
        try:
            newest = await self._directory.locate(located.name)
        except MingaError:
            return
        if newest.content_id != located.content_id and newest.published_ns > located.published_ns:
            raise VersionGoneError(
                f"nobody has version {located.content_id.short} of {located.name} any more: {newest.content_id.short} "
                "has replaced it",
                hint="get it without a version to have the newest",
            )

    def _check_removed(self, *, removed: bool) -> None:
        """Raises VersionGoneError once the version has been removed everywhere for long enough."""
        now = self._clock.monotonic()
        if not removed:
            self._removed_since = None
        elif self._removed_since is None:
            self._removed_since = now
        elif now - self._removed_since >= REMOVED_SECONDS:
            raise VersionGoneError(
                f"nobody has version {self._located.content_id.short} of {self._located.name} any more: it was removed "
                f"by {', '.join(sorted(self._holders)[:MAX_SHOWN_HOLDERS])}"
            )


class ManifestFetcher:
    """Fetches manifests from the sources of a content."""

    def __init__(self, transport: Transport, rng: random.Random | None = None) -> None:
        self._transport = transport
        self._rng = rng or random.Random()  # noqa: S311 - order, not secrets

    async def fetch(
        self, content_id: ContentId, sources: Iterable[SourceAddress]
    ) -> tuple[Manifest | None, set[PeerId]]:
        """The manifest, checked against its id, or None when no source gives it now; and the sources that answered
        that they do not have the content.

        Asks one source after the other, the next one early when the last is slow; takes the first good answer.
        """
        order = list(sources)
        self._rng.shuffle(order)
        pending: set[asyncio.Task[Manifest | None]] = set()
        refused: set[PeerId] = set()
        try:
            while order or pending:
                if order:
                    source = order.pop()
                    asked = self._ask(content_id, source, refused)
                    pending.add(asyncio.create_task(asked, name=f"manifest-{content_id.short}"))
                done, pending = await asyncio.wait(
                    pending,
                    timeout=MANIFEST_HEDGE_SECONDS if order else None,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                for task in done:
                    if (manifest := task.result()) is not None:
                        return manifest, refused
            return None, refused
        finally:
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)

    async def _ask(self, content_id: ContentId, source: SourceAddress, refused: set[PeerId]) -> Manifest | None:
        try:
            return await self._transport.manifest(source, content_id)
        except (ContentNotHeldError, ContentChangedError):
            refused.add(source.peer_id)
        except InvalidManifestError as error:
            log_event(log, logging.WARNING, "manifest_refused", source=source.peer_id, error=error)
        except MingaError as error:
            log_event(log, logging.DEBUG, "manifest_not_given", source=source.peer_id, error=error)
        return None
