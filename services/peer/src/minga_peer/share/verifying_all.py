"""Verifies many files now, because somebody asked for it: several at once, and as fast as the disk gives them."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing

from minga_core.errors import MingaError
from minga_engine.parts.disk import DiskPool
from minga_engine.parts.placing import MAX_SMALL_BYTES
from minga_engine.progress import BadFile, VerifyProgress
from minga_peer.share.indexed_file import IndexedFile
from minga_peer.share.verifying import SMALL_FILES_A_JOB, Verdict, Verified, Verifier

PROGRESS_SECONDS = 0.5
MAX_BAD_FILES = 1_000
"""In one progress (contract: control.proto)."""


class Verification:
    """One verification of some files. Only for the event loop's thread; half of the pool's threads work for it."""

    def __init__(self, verifier: Verifier, files: Sequence[IndexedFile], pool: DiskPool) -> None:
        self._verifier = verifier
        self._pool = pool
        self._files = files
        self._total_bytes = sum(file.size_bytes for file in files)
        self._checked_count = self._checked_bytes = 0
        self._bad: deque[BadFile] = deque()

    async def run(self) -> AsyncGenerator[VerifyProgress, None]:
        """Verify the files; progress at least every second, the last one when all are read. Closing it stops."""
        task = asyncio.create_task(self._verify_all(), name="verify-files")
        try:
            while not (await asyncio.wait({task}, timeout=PROGRESS_SECONDS))[0]:
                yield self._progress()
            await task
            yield self._progress()
            while self._bad:
                yield self._progress()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def _progress(self) -> VerifyProgress:
        bad = tuple(self._bad.popleft() for _ in range(min(len(self._bad), MAX_BAD_FILES)))
        return VerifyProgress(len(self._files), self._checked_count, self._total_bytes, self._checked_bytes, bad)

    async def _verify_all(self) -> None:
        jobs = _jobs(self._files)
        async with asyncio.TaskGroup() as group:
            for _ in range(max(1, self._pool.threads // 2)):
                group.create_task(self._work(jobs), name="verify-files")

    async def _work(self, jobs: Iterator[list[IndexedFile]]) -> None:
        for files in jobs:
            if files[0].size_bytes > MAX_SMALL_BYTES:
                self._note(await self._verify_large(files[0]))
                continue
            for verified in await self._verifier.verify_small(files, self._pool):
                self._checked_bytes += verified.file.size_bytes
                self._note(verified)

    async def _verify_large(self, file: IndexedFile) -> Verified:
        left_bytes, error = file.size_bytes, None
        try:
            async with aclosing(self._verifier.read(file, self._pool)) as steps:
                async for _, size_bytes in steps:
                    self._checked_bytes += size_bytes
                    left_bytes -= size_bytes
        except MingaError as caught:
            error = caught
        self._checked_bytes += left_bytes
        return self._verifier.settle(file, error)

    def _note(self, verified: Verified) -> None:
        self._checked_count += 1
        if verified.verdict in (Verdict.DAMAGED, Verdict.UNREADABLE):
            self._bad.append(BadFile(verified.file.name, verified.why, verified.verdict is Verdict.UNREADABLE))


def _jobs(files: Sequence[IndexedFile]) -> Iterator[list[IndexedFile]]:
    """Small files, many together, and large ones alone."""
    small = [file for file in files if file.size_bytes <= MAX_SMALL_BYTES]
    for start in range(0, len(small), SMALL_FILES_A_JOB):
        yield small[start : start + SMALL_FILES_A_JOB]
    yield from ([file] for file in files if file.size_bytes > MAX_SMALL_BYTES)
