"""Reading a content's verified bytes, in order of a position, while they arrive.

All readers of a content share one download, the same that `minga get` would start or join. Each says which chunks it is
about to read (`Demand`), and they come before all others; bytes are read from the disk once their chunk is verified and
written, so that a reader costs no memory beyond what it is given. The others are fetched as well, as in any download,
as soon as a reader has shown that it reads one byte after the other.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Protocol, TypeVar

from minga_core.chunks import ChunkSet, Geometry
from minga_core.clock import Clock
from minga_core.errors import (
    AlreadyRunningError,
    ContentChangedError,
    ContentNotHeldError,
    InvalidArgumentError,
    MingaError,
    NoSourcesError,
    PeerUnavailableError,
    StorageError,
)
from minga_core.ids import ContentId
from minga_core.units import format_seconds
from minga_engine.parts.disk import DiskPool, storage_errors
from minga_engine.parts.files import OpenChunk
from minga_engine.parts.places import OpenFile, Place
from minga_engine.progress import DownloadPhase, Progress
from minga_engine.swarm.config import SwarmConfig
from minga_engine.transfer.demand import Demand, Demands
from minga_engine.transfer.download import DownloadRequest, OnProgress
from minga_engine.transfer.locating import Located

LINGER_SECONDS = 5.0
"""How long an idle download waits for the next reader: opening the part and asking for the manifest again would cost
each request of a client that reads a file piece by piece."""
MAX_LINGERING = 32
"""Idle downloads at once; the one that was left first ends first."""
CHECK_SECONDS = 0.25
"""How often a read that waits looks whether its wait is over."""
READ_TRIES = 3
"""How often a chunk that was here and is gone when it is read is fetched once more."""
READ_THREADS = 4
"""Apart from those that verify and write what arrives, which may be busy with large chunks."""

T = TypeVar("T")

Fetch = Callable[[DownloadRequest, OnProgress], Awaitable[object]]
"""Starts a download, or joins one; returns once it is done. Cancelling it leaves a download to those who share it."""


class Reader(Protocol):
    """An open content."""

    @property
    def content_id(self) -> ContentId:
        """What is read."""
        ...

    @property
    def size_bytes(self) -> int:
        """Of the whole content."""
        ...

    @property
    def local(self) -> bool:
        """Whether all of it was on this machine when it was opened."""
        ...

    async def read(self, offset: int, length: int) -> bytes:
        """At least one byte from `offset` on and at most `length` (which is at least 1); empty at the end.

        Waits until they have arrived. Reads of one reader follow one another; readers of one content do not wait for
        each other. Safe to retry. Raises NoSourcesError when no source was usable for the wait, NoSpaceError,
        StorageError, VersionGoneError, LimitExceededError, InvalidArgumentError.
        """
        ...


class Contents(Protocol):
    """Where verified chunks are read from."""

    def held(self, content_id: ContentId) -> ChunkSet | None:
        """The chunks of a content that can be read now; None when there is nothing of it."""
        ...

    def following(self, content_id: ContentId) -> AbstractContextManager[asyncio.Event]:
        """An event that is set whenever what is held of the content changes; clear it before looking."""
        ...

    def open_chunk(self, content_id: ContentId, index: int) -> AbstractAsyncContextManager[OpenChunk]:
        """Where a chunk is on disk until the end of the block.

        Raises ContentNotHeldError, ContentChangedError, StorageError.
        """
        ...


class Streams:
    """Opens contents for reading. One for a process; `aclose` it.

    fetch: downloads into `contents`, by the same demands. wait: how long a read, and the download, wait for a source,
    None for ever.
    keep: whether what was read stays, where the caller does not say; None where nothing can stay. config: as that of
    downloads.
    """

    def __init__(
        self,
        contents: Contents,
        fetch: Fetch,
        demands: Demands,
        clock: Clock,
        *,
        wait: timedelta | None,
        keep: bool | None,
        config: SwarmConfig | None = None,
    ) -> None:
        self.contents = contents
        self.fetch = fetch
        self.clock = clock
        self.pool = DiskPool(READ_THREADS, "read")
        self.read_ahead_chunks = (config or SwarmConfig()).read_ahead_chunks
        self.closed = False
        self.wait = wait
        self._demands = demands
        self._keep = keep
        self._shared: dict[ContentId, _SharedDownload] = {}
        self._ending: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def open(
        self, file: Located, *, keep: bool | None = None, wait: timedelta | None = None
    ) -> AsyncGenerator["ContentReader", None]:
        """The reader of a located version, until the end of the block. Fetches nothing before the first read.

        keep: whether what is fetched for it stays on this machine, which becomes a holder; a version that is whole gets
        its name there, unless another file has it. wait: as that of the class, if it is shorter. None: as the process
        is set.
        """
        shared = self._shared.get(file.content_id)
        if shared is None:
            shared = self._shared[file.content_id] = _SharedDownload(self, file, self._demands.of(file.content_id))
        shared.join(keep=self._keep is not None and (self._keep if keep is None else keep))
        reader = ContentReader(self, shared, file, self.wait if wait is None else wait)
        try:
            yield reader
        finally:
            reader.leave()
            shared.leave()
            self._end_lingering()

    def _end_lingering(self) -> None:
        """End the downloads without readers that are too many."""
        idle = [shared for shared in self._shared.values() if not shared.reader_count]
        for shared in idle[: max(0, len(idle) - MAX_LINGERING)]:
            self.end(shared)

    def end(self, shared: "_SharedDownload") -> None:
        """End a download without readers; the next one begins another."""
        if self._shared.get(shared.content_id) is shared:
            del self._shared[shared.content_id]
        ending = asyncio.create_task(shared.aclose(), name=f"read-end-{shared.content_id.short}")
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)

    async def aclose(self) -> None:
        """End all downloads that only readers want. Readers that are still open raise PeerUnavailableError from now
        on. Idempotent."""
        self.closed = True
        for shared in list(self._shared.values()):
            self.end(shared)
        await asyncio.gather(*self._ending)
        await asyncio.to_thread(self.pool.close)


class _SharedDownload:
    """One content's download, for all its readers: none before a chunk is missing, or after all are here."""

    def __init__(self, streams: Streams, file: Located, demand: Demand) -> None:
        self.content_id = file.content_id
        self.demand = demand
        self.reader_count = 0
        self._streams = streams
        self._file = file
        self._task: asyncio.Task[None] | None = None
        self._waiting_since: float | None = None
        self._message = ""
        self._timer: asyncio.TimerHandle | None = None

    def join(self, *, keep: bool) -> None:
        """One more reader."""
        self.reader_count += 1
        if keep:
            self.demand.in_place.set()
        if self._timer is not None:
            self._timer.cancel()

    def leave(self) -> None:
        """One reader less. After the last one the download fetches nothing, and ends if no other comes soon."""
        self.reader_count -= 1
        if self.reader_count:
            return
        if self._task is None or self._task.done():
            self._streams.end(self)
        else:
            self._timer = asyncio.get_running_loop().call_later(LINGER_SECONDS, self._streams.end, self)

    async def aclose(self) -> None:
        """End the download, unless others want it. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def arrival(self, index: int, wait: timedelta | None) -> None:
        """Returns once a chunk is here, or the download is done. Raises as `Reader.read`."""
        since, task = self._streams.clock.monotonic(), self._started()
        with self._streams.contents.following(self.content_id) as changed:
            ended = partial(_set, changed)
            task.add_done_callback(ended)
            while not self.holds(index) and not task.done():
                with suppress(TimeoutError):
                    async with asyncio.timeout(CHECK_SECONDS):
                        await changed.wait()
                changed.clear()
                self._check_wait(since, wait)
            task.remove_done_callback(ended)
        if task.cancelled():
            raise _stopping()
        if task.done() and not self.holds(index):
            task.result()

    def holds(self, index: int) -> bool:
        """Whether a chunk can be read now."""
        held = self._streams.contents.held(self.content_id)
        return held is not None and index in held

    def held_after(self, index: int, stop: int) -> int:
        """The first chunk after `index`, before `stop`, that cannot be read now; else `stop`."""
        held = self._streams.contents.held(self.content_id)
        reached = index + 1
        while reached < stop and held is not None and reached in held:
            reached += 1
        return reached

    def _started(self) -> asyncio.Task[None]:
        if self._streams.closed:
            raise _stopping()
        if self._task is None or self._task.done():
            self._waiting_since = None
            self._task = asyncio.create_task(self._run(), name=f"read-{self.content_id.short}")
            # Its error is that of the reads that wait for it, if there are any.
            self._task.add_done_callback(lambda task: task.cancelled() or task.exception())
        return self._task

    async def _run(self) -> None:
        request = DownloadRequest.of(self._file, source_wait=self._streams.wait, reading=True)
        while True:
            try:
                await self._streams.fetch(request, self._note)
                return
            except AlreadyRunningError as error:
                # An upload brings the same content, or an earlier download of it is just ending.
                self._note(Progress(DownloadPhase.WAITING, message=str(error)))
                await asyncio.sleep(CHECK_SECONDS)

    def _note(self, progress: Progress) -> None:
        if progress.phase is not DownloadPhase.WAITING:
            self._waiting_since = None
        elif self._waiting_since is None:
            self._waiting_since = self._streams.clock.monotonic()
        self._message = progress.message

    def _check_wait(self, since: float, wait: timedelta | None) -> None:
        """Raises NoSourcesError once a read, which began at `since`, has waited for a source for longer than it may."""
        if wait is None or self._waiting_since is None:
            return
        seconds = self._streams.clock.monotonic() - max(since, self._waiting_since)
        if seconds > wait.total_seconds():
            raise NoSourcesError(
                f"no source of {self._file.name} was usable for {format_seconds(seconds)}: {self._message}"
            )


class ContentReader:
    """Implements Reader."""

    def __init__(self, streams: Streams, shared: _SharedDownload, file: Located, wait: timedelta | None) -> None:
        self.content_id = file.content_id
        self.size_bytes = file.size_bytes
        held = streams.contents.held(file.content_id)
        self.local = not file.size_bytes or (held is not None and held.complete)
        self._streams = streams
        self._shared = shared
        self._wait = wait
        self._geometry = Geometry(file.size_bytes)
        self._number = shared.demand.new_reader()
        self._reading = asyncio.Lock()
        self._position = 0
        self._in_order_bytes = 0
        self._file: OpenFile | None = None

    async def read(self, offset: int, length: int) -> bytes:
        """See Reader."""
        return b"" if offset >= self.size_bytes and length > 0 else await self._use(offset, length, OpenChunk.read)

    async def place(self, offset: int, length: int) -> Place:
        """Where the bytes are that `read` would give, for an offset before the end. Raises as `read`.

        Of a file that is whole and has its name, all of it.
        """
        return await self._use(offset, length, self._place)

    def leave(self) -> None:
        """Wants nothing any more."""
        self._shared.demand.leave(self._number)

    def _place(self, chunk: OpenChunk) -> Place:
        """Blocking. Raises ContentChangedError, OSError."""
        chunk.check()
        if self._file is None or not self._file.is_same(chunk.descriptor):
            self._file = OpenFile.again(chunk.descriptor)
        if chunk.fingerprint is not None:
            return Place(self._file, 0, self.size_bytes, chunk.fingerprint)
        return Place(self._file, chunk.offset, chunk.offset + chunk.size_bytes)

    async def _use(self, offset: int, length: int, work: Callable[[OpenChunk], T]) -> T:
        """Call `work`, in a thread, with where the bytes are that were asked for, the first of which have arrived."""
        if not 0 <= offset < self.size_bytes or length < 1:
            raise InvalidArgumentError(f"{length} bytes from {offset} on cannot be read")
        async with self._reading:
            made, count = await self._used(offset, min(length, self.size_bytes - offset), work)
            self._in_order_bytes = count + (self._in_order_bytes if offset == self._position else 0)
            self._position = offset + count
            return made

    async def _used(self, offset: int, length: int, work: Callable[[OpenChunk], T]) -> tuple[T, int]:
        """As `_use`, with how many bytes there were."""
        index = offset // self._geometry.chunk_size_bytes
        failure: MingaError | None = None
        for _ in range(READ_TRIES):
            self._want(offset, length)
            if not self._shared.holds(index):
                await self._shared.arrival(index, self._wait)
            try:
                return await self._used_once(index, offset, length, work)
            except (ContentChangedError, ContentNotHeldError, StorageError) as error:
                # It was changed, removed or cannot be read, and does not count as held any more: others have it.
                failure = error
        raise failure or StorageError(f"{self.content_id.short} cannot be read")

    async def _used_once(self, index: int, offset: int, length: int, work: Callable[[OpenChunk], T]) -> tuple[T, int]:
        chunk_bytes = self._geometry.chunk_size_bytes
        stop = self._shared.held_after(index, -(-(offset + length) // chunk_bytes)) * chunk_bytes
        async with self._streams.contents.open_chunk(self.content_id, index) as chunk:
            # Chunks are at their own offsets, in files and in parts.
            wanted = replace(chunk, offset=offset, size_bytes=min(offset + length, stop) - offset)
            with storage_errors(f"cannot read {self.content_id.short}"):
                return await self._streams.pool.run(work, wanted), wanted.size_bytes

    def _want(self, offset: int, length: int) -> None:
        """Move the window: what is read now, and the more ahead of it the more was read in order before."""
        chunk_bytes = self._geometry.chunk_size_bytes
        in_order = self._in_order_bytes if offset == self._position else 0
        ahead = min(self._streams.read_ahead_chunks * chunk_bytes, max(length, 4 * in_order))
        start, stop = offset // chunk_bytes, -(-(offset + ahead) // chunk_bytes)
        # A chunk's bytes in order: it is taken to want the rest.
        rest = in_order >= chunk_bytes
        self._shared.demand.move(self._number, start, stop, rest=rest)


def _set(event: asyncio.Event, _: object) -> None:
    event.set()


def _stopping() -> PeerUnavailableError:
    return PeerUnavailableError("nothing is read here any more: the process is stopping")
