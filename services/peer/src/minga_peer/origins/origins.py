"""Opens files of origins: from this machine, from the swarm, or fetched for all."""

import asyncio
import secrets
from collections.abc import AsyncGenerator, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    aclosing,
    asynccontextmanager,
    contextmanager,
    suppress,
)
from dataclasses import dataclass, replace
from datetime import timedelta

from minga_core.errors import ContentNotHeldError, MingaError, NoSourcesError, PeerUnavailableError
from minga_core.ids import ContentId
from minga_core.names import Name
from minga_core.records import PUBLISH
from minga_engine.parts.part_files import PartTarget
from minga_engine.progress import DownloadPhase, Progress
from minga_engine.transfer.download import DownloadRequest, OnProgress
from minga_engine.transfer.locating import Located
from minga_engine.transfer.stream import Reader, Streams
from minga_engine.wire.digests import DigestStep
from minga_peer.origins._metrics import Stalled
from minga_peer.origins.arrival import Arrival
from minga_peer.origins.cache import Cache
from minga_peer.origins.means import Means
from minga_peer.origins.origin_file import OriginFile, name_of, name_of_digest
from minga_peer.origins.reader import OriginReader
from minga_peer.origins.upstream import Upstream

PROGRESS_SECONDS = 0.25
LINGER_SECONDS = 5.0
"""How long a file goes on coming without a reader: clients ask for one file by several requests."""
HELD_SECONDS = 0.1
"""A look-up of what may be in the swarm takes no longer: its caller has another way."""


class Origins:
    """Files of origins. One for a daemon; `aclose` it."""

    def __init__(self, means: Means) -> None:
        self._means = means
        self._arrivals: dict[Name, Arrival] = {}
        self._by_content: dict[ContentId, Arrival] = {}
        self._running: set[Arrival] = set()
        self._streams = Streams(
            means.store, self._arrive, means.options.demands, means.clock, wait=timedelta(minutes=1), keep=True
        )
        self._closed = False
        means.cache.in_use = self._is_read

    @property
    def upstream(self) -> Upstream:
        """The client to what is outside."""
        return self._means.upstream

    @property
    def cache(self) -> Cache:
        """What is here of origins."""
        return self._means.cache

    async def held(self, digest: str) -> Located | None:
        """The content of that digest, here or in the swarm, as far as everybody may have it; None when it is not known
        within HELD_SECONDS.

        What peers have is believed: `open` verifies. Raises InvalidArgumentError.
        """
        name, means = name_of_digest(digest), self._means
        if (here := means.local.named(name)) is not None:
            return here
        with suppress(MingaError, TimeoutError):
            async with asyncio.timeout(HELD_SECONDS):
                found = await means.directory.locate(name)
                return None if means.checked.is_wrong(name, found.content_id) else found
        return None

    def has(self, file: OriginFile) -> bool:
        """Whether a file that something identifies is on this machine."""
        return self._means.local.named(name_of(file)) is not None

    async def identified(self, file: OriginFile) -> OriginFile:
        """The file with its size and what identifies it, by a HEAD at its origin where neither is known.

        Raises as `Upstream.head`.
        """
        return file if file.digest or file.validator else await self._asked(file)

    async def described(self, file: OriginFile) -> OriginFile:
        """The file with its size, if its origin says it, and nothing fetched: of what is here or in the swarm, or by a
        HEAD at its origin. Raises as `Upstream.head`."""
        if not file.is_private:
            if file.size_bytes is not None:
                return file
            if file.digest and (found := await self.held(file.digest)) is not None:
                return replace(file, size_bytes=found.size_bytes)
        return await self._asked(file)

    async def _asked(self, file: OriginFile) -> OriginFile:
        """What its origin says of it now, to one with these credentials. Raises as `Upstream.head`."""
        answer = await self._means.upstream.head(file.url, file.headers)
        size_bytes = answer.size_bytes if file.size_bytes is None else file.size_bytes
        return replace(file, size_bytes=size_bytes, validator=answer.validator)

    @asynccontextmanager
    async def open(self, file: OriginFile, found: Located | None = None) -> AsyncGenerator[OriginReader, None]:
        """The reader of a file until the end of the block. It is fetched whole, whatever is read of it.

        found: what `held` has just returned for its digest, which is not looked up again then.

        What is private is here, or with peers, by the credentials of others: the origin is asked by those of the file
        first, each time. Raises PermissionDeniedError, OriginRefusedError, FileNotFoundInDirectoryError,
        UnavailableError, ContentChangedError, NoSpaceError, StorageError, as reads of it do.
        """
        file = await (self._asked(file) if file.is_private else self.identified(file))
        # Without anything that identifies it nobody else can know that it is the same.
        name = name_of(file if file.digest or file.validator else replace(file, validator=f'"{secrets.token_hex(16)}"'))
        async with AsyncExitStack() as stack:
            reader = OriginReader(_Room(self, file, name, found), stack)
            await reader.begin(peers=True)
            yield reader

    async def get(self, file: OriginFile) -> AsyncGenerator[Progress, None]:
        """Fetch a file whole; progress until it is in place, with its path in the last one. Raises as `open`."""
        async with self.open(file) as reader:
            whole = asyncio.create_task(reader.whole(), name="origin-get")
            try:
                while not (await asyncio.wait({whole}, timeout=PROGRESS_SECONDS))[0]:
                    yield reader.progress
                located = await whole
            finally:
                whole.cancel()
                await asyncio.gather(whole, return_exceptions=True)
            phase = DownloadPhase.ALREADY_PRESENT if reader.local else DownloadPhase.DONE
            size_bytes, path = located.size_bytes, self._means.store.path_of(located.name)
            yield replace(
                reader.progress,
                phase=phase,
                size_bytes=size_bytes,
                held_bytes=size_bytes,
                content_id=located.content_id,
                path=path,
            )

    async def publish(self, content_id: ContentId, name: Name, *, overwrite: bool) -> None:
        """Publish a content that is here under another name too. Raises NameTakenError, NoSpaceError, StorageError."""
        store = self._means.store
        present = store.find(name)
        if present is not None and present.key.content_id == content_id:
            return
        target = PartTarget(name, await store.manifest(content_id), content_id, PUBLISH)
        # What is here with that content is copied, where the file system can without using more space.
        part = await store.begin_part(target, overwrite=overwrite)
        try:
            await part.commit()
        finally:
            await part.discard()

    async def digests(self, transfer_id: bytes) -> AsyncGenerator[DigestStep, None]:
        """What becomes known of a file that this peer fetches. Raises as `Transfer.digests`."""
        # Also of one that nobody reads here any more: until it is announced, others know of it by its claim alone.
        arrival = next((each for each in self._running if _fetches(each, transfer_id)), None)
        if arrival is None or arrival.transfer is None:
            raise ContentNotHeldError("this peer does not fetch that")
        with self._used(arrival):
            async with aclosing(arrival.transfer.digests(transfer_id)) as steps:
                async for step in steps:
                    yield step

    # For readers.

    @asynccontextmanager
    async def arriving(
        self, file: OriginFile, name: Name, found: Located | None, *, peers: bool
    ) -> AsyncGenerator[Arrival, None]:
        """The file on its way, which all who want it share, begun by the first of them. found: as of `open`."""
        if self._closed:
            raise PeerUnavailableError("the peer is stopping")
        arrival = self._arrivals.get(name)
        if arrival is None or arrival.settled:
            arrival = self._arrivals[name] = Arrival(self._means, file, name, found, peers=peers, on_end=self._ended)
            self._running.add(arrival)
            if not peers:
                self._means.metrics.stalled(Stalled.HOLDERS)
        self._means.cache.used(name, file.url)
        with self._used(arrival):
            self._by_content[(await arrival.begun()).content_id] = arrival
            yield arrival

    @contextmanager
    def _used(self, arrival: Arrival) -> Iterator[None]:
        """It goes on as long as somebody uses it."""
        arrival.users += 1
        if arrival.unused is not None:
            arrival.unused.cancel()
        try:
            yield
        finally:
            arrival.users -= 1
            if not arrival.users:
                seconds = 0 if arrival.settled else LINGER_SECONDS
                arrival.unused = asyncio.get_running_loop().call_later(seconds, self._end_unused, arrival)

    def _is_read(self, name: Name) -> bool:
        arrival = self._arrivals.get(name)
        return arrival is not None and arrival.users > 0

    def reading(self, located: Located) -> AbstractAsyncContextManager[Reader]:
        """A plain reader of what is on its way."""
        return self._streams.open(located)

    async def _arrive(self, request: DownloadRequest, on_progress: OnProgress) -> None:
        """What `Streams` takes for a download."""
        arrival = self._by_content.get(request.content_id) if request.content_id is not None else None
        if arrival is None:
            raise NoSourcesError(f"{request.name} is not on its way any more")
        await arrival.whole()

    def _end_unused(self, arrival: Arrival) -> None:
        if arrival.users:
            return
        if self._arrivals.get(arrival.name) is arrival:
            del self._arrivals[arrival.name]
        for content_id in [each for each, found in self._by_content.items() if found is arrival]:
            del self._by_content[content_id]
        # What is in place, and about to be announced, ends by itself.
        if not arrival.settled:
            arrival.end()

    def _ended(self, arrival: Arrival) -> None:
        self._running.discard(arrival)
        self._end_unused(arrival)

    async def aclose(self) -> None:
        """End everything that is on its way. Idempotent."""
        if self._closed:
            return
        self._closed = True
        await self._streams.aclose()
        # At once: each gives its claim up, for which a registry that is away takes its time.
        await asyncio.gather(*(arrival.aclose() for arrival in self._running))
        await self._means.cache.aclose()
        await self._means.upstream.aclose()
        await asyncio.to_thread(self._means.pool.close)


def _fetches(arrival: Arrival, transfer_id: bytes) -> bool:
    """Whether it is fetched here under that id. One that is followed, or fetched for this peer alone, has none."""
    return bool(transfer_id) and arrival.transfer is not None and arrival.transfer.claim.transfer_id == transfer_id


@dataclass(frozen=True, slots=True)
class _Room:
    """One file's. Implements Room."""

    origins: Origins
    file: OriginFile
    name: Name
    found: Located | None

    def arriving(self, *, peers: bool) -> AbstractAsyncContextManager[Arrival]:
        return self.origins.arriving(self.file, self.name, self.found, peers=peers)

    def reading(self, located: Located) -> AbstractAsyncContextManager[Reader]:
        return self.origins.reading(located)
