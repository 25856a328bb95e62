"""The scrub: reads everything that is shared once in a while, slowly, to find rot before a reader does.

It stands still while anybody is served, anything is downloaded, uploaded or hashed, unless a pass takes longer than it
should by that alone. Its place is kept over restarts.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from itertools import groupby

from minga_core.errors import MingaError, StorageError
from minga_core.names import Name
from minga_engine.parts.disk import DiskPool
from minga_engine.parts.part import Part
from minga_engine.parts.placing import MAX_SMALL_BYTES
from minga_peer.share.folder_sync import FolderSync
from minga_peer.share.indexed_file import IndexedFile
from minga_peer.share.shared_folder import SharedFolder
from minga_peer.share.store_metrics import StoreMetrics
from minga_peer.share.verifying import SLICE_BYTES, SMALL_FILES_A_JOB, Verifier, slices
from minga_runtime.logs import log_event

log = logging.getLogger(__name__)

NAMES_AT_ONCE = 512
MIN_BYTES_PER_SECOND = 1024 * 1024
"""Even where a pass would have time for less: it is over sooner then."""
MAX_BYTES_PER_SECOND = 64 * 1024 * 1024
"""Of a pass that is late."""
IDLE_POLL_SECONDS = 1.0
FIRST_WAIT_SECONDS = 600.0
"""After a start, which has other things to do."""


@dataclass(frozen=True, slots=True)
class ScrubState:
    """How far the scrub is. Kept over restarts."""

    under_way: bool = False
    began_at: float = 0.0
    """Unix time at which the pass under way, or else the last one, began; 0: none ever has."""
    ended_at: float = 0.0
    """Unix time at which the last pass ended; 0: none ever has."""
    read_bytes: int = 0
    """Read in this pass."""
    name: str = ""
    """Files up to this name, in order of their bytes, are done."""
    content: str = ""
    """Content id of the file of which `chunk_count` chunks are done; empty: none was begun."""
    chunk_count: int = 0


class Scrub:
    """Passes over all files and parts. Only for the event loop's thread; `run` does the work.

    period_seconds: how long a pass may take, and the time from the beginning of one to that of the next. 0: no scrub.
    """

    def __init__(
        self,
        folder: SharedFolder,
        sync: FolderSync,
        verifier: Verifier,
        metrics: StoreMetrics | None,
        period_seconds: float,
    ) -> None:
        self._folder = folder
        self._sync = sync
        self._verifier = verifier
        self._metrics = metrics
        self._pool = DiskPool(1, "scrub")
        self.period_seconds = period_seconds
        self.state = ScrubState()
        self.busy: Callable[[], bool] = lambda: False
        """Whether others are served now."""

    async def run(self) -> None:
        """Scrub until cancelled."""
        if not self.period_seconds:
            return
        poll_seconds = min(FIRST_WAIT_SECONDS, self.period_seconds / 10)
        while True:
            await asyncio.sleep(poll_seconds)
            # A clock that was put back must not put the next pass off for years.
            if not self.state.under_way and not 0 <= self._now() - self.state.began_at < self.period_seconds:
                self.state = ScrubState(True, self._now(), self.state.ended_at)
            if self.state.under_way:
                await self._finish_pass()

    def close(self) -> None:
        """End the thread."""
        self._pool.close()

    async def _finish_pass(self) -> None:
        """Read what is left of a pass."""
        for part in list(self._folder.inventory.parts.values()):
            await self._read_part(part)
        while names := await self._folder.index.names_after(self.state.name, NAMES_AT_ONCE):
            files = [file for name in names if (file := self._folder.shared_or_damaged(name)) is not None]
            for small, group in groupby(files, lambda file: file.size_bytes <= MAX_SMALL_BYTES):
                read = self._read_small if small else self._read_large
                await read(list(group))
            self._file_done(names[-1])
        done = self.state
        self.state = ScrubState(False, done.began_at, self._now())
        seconds = round(self._now() - done.began_at)
        damaged = len(self._folder.damaged)
        log_event(log, logging.INFO, "scrub_done", bytes=done.read_bytes, seconds=seconds, damaged=damaged)

    async def _read_part(self, part: Part) -> None:
        geometry = part.manifest.geometry
        for chunks in slices(geometry):
            held = [index for index in chunks if index in part.held]
            with suppress(StorageError):  # it is closed: a file by now, or deleted
                await part.verify(held)
            await self._paced(sum(map(geometry.length, held)))

    async def _read_small(self, files: list[IndexedFile]) -> None:
        for start in range(0, len(files), SMALL_FILES_A_JOB):
            some = files[start : start + SMALL_FILES_A_JOB]
            await self._verifier.verify_small(some, self._pool)
            self._file_done(some[-1].name)
            await self._paced(sum(file.size_bytes for file in some))

    async def _read_large(self, files: list[IndexedFile]) -> None:
        for file in files:
            error = None
            first = self.state.chunk_count if self.state.content == str(file.content_id) else 0
            try:
                async with aclosing(self._verifier.read(file, self._pool, first)) as steps:
                    async for chunk_count, size_bytes in steps:
                        self.state = replace(self.state, content=str(file.content_id), chunk_count=chunk_count)
                        await self._paced(size_bytes)
            except MingaError as caught:
                error = caught
                await self._paced(min(SLICE_BYTES, file.size_bytes))
            if error is not None or first == 0:
                # What was read in part before a restart is no proof that a damaged file is good again.
                self._verifier.settle(file, error)
            self._file_done(file.name)

    def _file_done(self, name: Name) -> None:
        self.state = replace(self.state, name=name, content="", chunk_count=0)

    async def _paced(self, size_bytes: int) -> None:
        """Count what was read, and wait until as much again may be read."""
        self.state = replace(self.state, read_bytes=self.state.read_bytes + size_bytes)
        if self._metrics is not None:
            self._metrics.scrubbed_bytes(size_bytes)
        await asyncio.sleep(size_bytes / self._rate())
        while self._stands_still():  # noqa: ASYNC110 - what others do is theirs
            await asyncio.sleep(IDLE_POLL_SECONDS)

    @property
    def _left_seconds(self) -> float:
        return self.state.began_at + self.period_seconds - self._now()

    def _rate(self) -> float:
        """Bytes per second with which the pass ends in time."""
        if self._left_seconds <= 0:
            return MIN_BYTES_PER_SECOND if self._is_busy() else MAX_BYTES_PER_SECOND
        needed = (self._folder.inventory.shared_bytes - self.state.read_bytes) / self._left_seconds
        return min(max(needed, MIN_BYTES_PER_SECOND), MAX_BYTES_PER_SECOND)

    def _stands_still(self) -> bool:
        """Whether to wait for others. A pass that is late goes on all the same, as slowly as any."""
        return self._left_seconds > 0 and self._is_busy()

    def _is_busy(self) -> bool:
        writing = any(part.writing for part in self._folder.inventory.parts.values())
        return writing or self._sync.pending_count > 0 or self.busy()

    def _now(self) -> float:
        return self._folder.clock.wall()
