"""Many small files at once: one look-up for all their names, one call to each source, one step to put them in place.

A folder of small files is slow for its dozen round trips per file, not for its bytes. This is best effort, for the
common case: a file that is larger than a chunk, is there with another content, is held by no peer that answers, or is
refused by the disk, is left out; `download.Downloader` then fetches it, waits for it, or reports why it cannot.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing
from datetime import timedelta
from typing import Protocol

from opentelemetry.trace import Span

from minga_core.errors import ChunkCorruptError, MingaError
from minga_core.ids import ContentId, PeerId
from minga_core.names import Name
from minga_engine.parts.placing import MAX_SMALL_BYTES, SmallContent, SmallFile
from minga_engine.progress import SmallDone
from minga_engine.transfer.locating import Directory, Located
from minga_engine.transfer.options import TransferOptions
from minga_engine.wire.groups import Group
from minga_engine.wire.messages import MAX_SMALL_FILES, SourceAddress
from minga_engine.wire.transport import PeerBusyError, Transport
from minga_runtime import tracing
from minga_runtime.logs import log_event

log = logging.getLogger(__name__)

BATCHES_AT_ONCE = 2
"""Batches under way: while one waits for its sources the other one looks its names up or is put in place."""
ROUNDS = 3
"""How often sources are chosen for what is still lacking; the rest is left."""
MAX_BUSY_PAUSE = timedelta(seconds=1)
IDLE_LIMIT = timedelta(seconds=10)
"""A source that sends nothing for so long is given up."""
STORE_BYTES = 32 * 1024 * 1024
STORE_SECONDS = 1.0
"""So much of all sources of a batch, or what comes in so long, is put in place together: each time costs the disk two
flushes of its cache."""
REPORT_SECONDS = 1.0
"""Longest time until a source knows that it sent wrong bytes."""


OnDone = Callable[[list[SmallDone]], None]


class SmallDestination(Protocol):
    """Where small files go."""

    async def sort(self, located: Sequence[Located]) -> tuple[list[SmallDone], list[Located]]:
        """Those that are there already, whole, and those that may be put there; the others in neither."""
        ...

    async def store(self, files: Sequence[SmallFile]) -> list[str | None]:
        """Puts files in place, as far as they can be: the path of each, or None. Replaces nothing."""
        ...


class SmallDownloads:
    """Downloads small files into a destination. One for a process."""

    def __init__(
        self,
        destination: SmallDestination,
        directory: Directory,
        transport: Transport,
        options: TransferOptions,
    ) -> None:
        self._destination = destination
        self._directory = directory
        self._transport = transport
        self._options = options
        self._metrics = options.metrics

    async def download(self, names: Sequence[Name], on_done: OnDone) -> None:
        """Downloads the newest versions of those names; `on_done` gets those that are in place, as they arrive.

        Returns when nothing more comes this way. Raises no MingaError: files that are not reported are left to others.
        Cancelled, it leaves whole files or none; calling again finds them there.
        """
        batches = iter([names[start : start + MAX_SMALL_FILES] for start in range(0, len(names), MAX_SMALL_FILES)])
        async with asyncio.TaskGroup() as group:
            for _ in range(BATCHES_AT_ONCE):
                group.create_task(self._work(batches, on_done), name="small-files")

    async def _work(self, batches: Iterator[Sequence[Name]], on_done: OnDone) -> None:
        for names in batches:
            with tracing.span("download small files", {"minga.files.asked": len(names)}) as span:
                try:
                    await self._batch(names, on_done, span)
                except MingaError as error:
                    log_event(log, logging.DEBUG, "small_files_left", count=len(names), error=error)
                    tracing.record_error(span, error.code.value, str(error))

    async def _batch(self, names: Sequence[Name], on_done: OnDone, span: Span) -> None:
        located = await self._directory.locate_newest(names)
        small = [one for one in located if one.size_bytes <= MAX_SMALL_BYTES]
        there, wanted = await self._destination.sort(small)
        if there:
            on_done(there)
        left = await self._fetch(wanted, on_done)
        span.set_attribute("minga.files.already_there", len(there))
        span.set_attribute("minga.files.fetched", len(wanted) - left)

    async def _fetch(self, wanted: Sequence[Located], on_done: OnDone) -> int:
        """How many files were not to be had."""
        batch = _Batch(wanted)
        for _ in range(ROUNDS):
            calls = batch.calls()
            if not calls:
                break
            # What waits to be put in place is in memory, of all sources together.
            most_bytes = STORE_BYTES // len(calls)
            async with asyncio.TaskGroup() as group:
                for source, contents in calls:
                    work = self._call(batch, source, contents, most_bytes, on_done)
                    group.create_task(work, name="fetch-files")
            if batch.pause > timedelta(0):
                await asyncio.sleep(min(batch.pause, MAX_BUSY_PAUSE).total_seconds())
        return batch.lacking_count

    async def _call(
        self, batch: "_Batch", source: SourceAddress, contents: Sequence[ContentId], most_bytes: int, on_done: OnDone
    ) -> None:
        """Fetches contents from one source and puts them in place as they come."""
        try:
            async with (
                aclosing(self._transport.fetch_files(source, contents)) as groups,
                aclosing(self._gathered(groups, most_bytes)) as gathered,
            ):
                async for some in gathered:
                    await self._store(batch, source, [(contents[place], data) for place, data in some], on_done)
            batch.refuse(source, contents)
        except PeerBusyError as error:
            batch.pause = max(batch.pause, error.retry_after)
        except MingaError as error:
            batch.refuse(source, contents)
            log_event(log, logging.DEBUG, "small_files_not_given", source=source.peer_id, error=error)

    async def _gathered(self, groups: AsyncIterator[Group], most_bytes: int) -> AsyncGenerator[Group, None]:
        """What comes, as much at a time as is put in place together; also what came before an error, which is raised
        then."""
        some: Group = []
        size_bytes, began_at = 0, time.monotonic()
        failure: MingaError | None = None
        try:
            while (group := await _next(groups)) is not None:
                more_bytes = sum(len(data) for _, data in group)
                await self._options.down.take(more_bytes)
                some += group
                size_bytes += more_bytes
                if size_bytes >= most_bytes or time.monotonic() - began_at > STORE_SECONDS:
                    yield some
                    some, size_bytes, began_at = [], 0, time.monotonic()
        except MingaError as error:
            failure = error
        if some:
            yield some
        if failure is not None:
            raise failure

    async def _store(
        self, batch: "_Batch", source: SourceAddress, group: list[tuple[ContentId, bytes | memoryview]], on_done: OnDone
    ) -> None:
        """Verifies what came, and puts it in place. Raises ChunkCorruptError for what is not what it should be, once
        the source knows of it."""
        good, wrong = await asyncio.to_thread(_verified, group)
        self._metrics.received(source.peer_id, sum(len(content.data) for content in good), complete=True)
        files = [file for content in good for file in batch.files_of(content)]
        paths = await self._destination.store(files)
        done = [
            SmallDone(file.name, file.content.content_id, len(file.content.data), path, source.peer_id)
            for file, path in zip(files, paths, strict=True)
            if path is not None
        ]
        if done:
            on_done(done)
        if wrong:
            self._metrics.corrupt(source.peer_id)
            error = ChunkCorruptError(f"these bytes are not the content {wrong[-1].short}")
            log_event(log, logging.WARNING, "small_file_corrupt", source=source.peer_id, error=error)
            await self._report(source, wrong)
            raise error

    async def _report(self, source: SourceAddress, wrong: Sequence[ContentId]) -> None:
        """Has a source look at contents that it sent wrong."""
        try:
            async with asyncio.timeout(REPORT_SECONDS):
                for content_id in wrong:
                    await self._transport.report_wrong(source, content_id, 0)
        except (TimeoutError, MingaError) as error:
            log_event(log, logging.DEBUG, "report_not_taken", source=source.peer_id, error=error)


class _Batch:
    """What is lacking of some files, and who may be asked for it."""

    def __init__(self, wanted: Sequence[Located]) -> None:
        self._lacking: dict[ContentId, list[Located]] = {}
        for one in wanted:
            self._lacking.setdefault(one.content_id, []).append(one)
        self._refused: set[tuple[PeerId, ContentId]] = set()
        self.pause = timedelta(0)
        """How long busy sources want not to be asked."""

    @property
    def lacking_count(self) -> int:
        """Files that have not come."""
        return sum(len(files) for files in self._lacking.values())

    def calls(self) -> list[tuple[SourceAddress, list[ContentId]]]:
        """What to ask whom now: each content of one of its holders, evenly spread, those of our zone first."""
        asked: dict[PeerId, tuple[SourceAddress, list[ContentId]]] = {}
        for content_id, files in self._lacking.items():
            sources = [source for file in files for source in file.sources if source.complete]
            if self._refused:
                sources = [source for source in sources if (source.peer_id, content_id) not in self._refused]
            near = [source for source in sources if source.same_zone] or sources
            if near:
                calls = [asked.setdefault(source.peer_id, (source, [])) for source in near]
                min(calls, key=lambda call: len(call[1]))[1].append(content_id)
        return [call for call in asked.values() if call[1]]

    def files_of(self, content: SmallContent) -> list[SmallFile]:
        """The files that a content is for; it is not lacking any more, whatever becomes of them."""
        files = self._lacking.pop(content.content_id, [])
        return [SmallFile(file.name, content, file.published_ns, file.attributes, file.tag) for file in files]

    def refuse(self, source: SourceAddress, contents: Sequence[ContentId]) -> None:
        """The source is not asked for those again."""
        self._refused.update((source.peer_id, content_id) for content_id in contents if content_id in self._lacking)


def _verified(group: list[tuple[ContentId, bytes | memoryview]]) -> tuple[list[SmallContent], list[ContentId]]:
    """What is what it should be, and the ids of what is not."""
    good: list[SmallContent] = []
    wrong: list[ContentId] = []
    for content_id, data in group:
        try:
            good.append(SmallContent.of(data, content_id))
        except ChunkCorruptError:
            wrong.append(content_id)
    return good, wrong


async def _next(groups: AsyncIterator[Group]) -> Group | None:
    """The next group; None at the end, and when nothing comes for too long."""
    try:
        async with asyncio.timeout(IDLE_LIMIT.total_seconds()):
            return await anext(groups, None)
    except TimeoutError:
        return None
