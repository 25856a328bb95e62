"""Fetching through the daemon of this machine, which becomes a holder; then a copy to the target when there is one."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from pathlib import Path

from minga.control import ControlClient
from minga.copying import FileCopy, copy_into_place, copy_small
from minga.fetching import (
    FetchItem,
    FetchOptions,
    OnItemProgress,
    OnProgress,
    after_earlier,
    make_folders_in_thread,
    progress_of,
    run_batch,
    with_folders,
)
from minga.origin_urls import OriginUrl
from minga_core.batching import by_size
from minga_core.errors import ContentChangedError, DaemonUnavailableError, MingaError, PermissionDeniedError
from minga_core.names import Name
from minga_engine.parts.disk import DiskPool
from minga_engine.progress import DownloadPhase, Progress, SmallDone
from minga_runtime.tasks import all_of

CALLS_AT_ONCE = 3
"""While what one call brought is copied, the daemon goes on with the others."""
COPY_BYTES = 32 * 1024 * 1024
"""Copied together, and in memory meanwhile: each time costs the disk two flushes of its cache."""
COPIES_AT_ONCE = 8
"""Files that are copied one by one: what cannot go together with others."""

_LAST = (DownloadPhase.DONE, DownloadPhase.ALREADY_PRESENT)


class DaemonFetcher:
    """Lets the daemon download, then copies to the target. Implements Fetcher."""

    def __init__(self, control: ControlClient, options: FetchOptions) -> None:
        self._control = control
        self._options = options

    async def fetch_small(self, batches: AsyncIterator[list[FetchItem]], on_done: OnItemProgress) -> None:
        """Fetch each name of a batch once, and copy what came to each of its targets meanwhile.

        They are the newest versions: another one is left to `fetch`.
        """
        if self._options.content_id is not None:
            return
        pool = DiskPool(CALLS_AT_ONCE, "copy")

        async def work() -> None:
            with suppress(MingaError):
                async for batch in batches:
                    wanted: dict[Name, list[FetchItem]] = {}
                    for item in batch:
                        wanted.setdefault(item.name, []).append(item)
                    async with aclosing(self._control.download_files(list(wanted))) as steps:
                        async for done in steps:
                            there = [(item, one) for one in done for item in wanted.pop(one.name, ())]
                            await self._take(there, pool, on_done)

        try:
            await all_of((work() for _ in range(CALLS_AT_ONCE)), "small-files")
        finally:
            pool.close()

    async def _take(
        self, there: Sequence[tuple[FetchItem, SmallDone]], pool: DiskPool, on_done: OnItemProgress
    ) -> None:
        """Copy small files that the daemon has to their targets, and report them; those without one at once."""
        to_copy: dict[FetchItem, tuple[SmallDone, Path]] = {}
        for item, done in there:
            if item.target is None:
                on_done(item, _in_share(done))
            else:
                to_copy[item] = done, item.target
        if not to_copy:
            return
        ready = await asyncio.to_thread(with_folders, list(to_copy))
        left: list[FetchItem] = []
        for some in by_size(ready, lambda item: to_copy[item][0].size_bytes, COPY_BYTES):
            found = [to_copy[item] for item in some]
            copies = [FileCopy(done.name, done.content_id, done.path, target) for done, target in found]
            copied = await pool.run(copy_small, copies)
            for item, (done, target), is_copied in zip(some, found, copied, strict=True):
                if is_copied:
                    on_done(item, progress_of(done, target, DownloadPhase.DONE))
                else:
                    left.append(item)

        async def copy_alone(item: FetchItem) -> None:
            on_done(item, await self._copy(item, _in_share(to_copy[item][0])))

        await run_batch(left, copy_alone, COPIES_AT_ONCE)

    async def fetch(self, item: FetchItem, on_progress: OnProgress) -> Progress:
        """Download one file, and copy it to its target when it has one."""
        await make_folders_in_thread(item)
        last = await after_earlier(lambda: self._download(item, on_progress))
        if item.target is None:
            return last
        on_progress(replace(last, phase=DownloadPhase.FINISHING))
        return await self._copy(item, last)

    async def _download(self, item: FetchItem, on_progress: OnProgress) -> Progress:
        options = self._options
        if item.origin is not None:
            return await self._fetch(item.origin, on_progress)
        steps = self._control.download(
            item.name, options.content_id, overwrite=options.overwrite, source_wait=options.wait
        )
        return await _last_of(steps, on_progress)

    async def _fetch(self, origin: OriginUrl, on_progress: OnProgress) -> Progress:
        request = await asyncio.to_thread(origin.request)
        try:
            steps = self._control.fetch(origin, request, overwrite=self._options.overwrite)
            return await _last_of(steps, on_progress)
        except PermissionDeniedError as error:
            asked = f"it was asked with {request.credentials}" if request.credentials else "it was asked anonymously"
            raise PermissionDeniedError(f"{origin.shown}: {error}", hint=error.hint or asked) from error

    async def _copy(self, item: FetchItem, last: Progress) -> Progress:
        """Copy a downloaded file to the target; the progress then."""
        source, target, content_id = last.path, item.target, last.content_id
        if source is None or target is None or content_id is None:
            raise DaemonUnavailableError("the daemon does not say where the file is, or which content it is")
        if self._options.content_id not in (None, content_id):
            raise ContentChangedError(f"the daemon has the content {content_id.short}, which is not the one wanted")
        copied = await copy_into_place(source, target, content_id, overwrite=self._options.overwrite)
        size_bytes = (await asyncio.to_thread(target.stat)).st_size
        # What the daemon had before was not fetched by this call.
        before = size_bytes if last.phase is DownloadPhase.ALREADY_PRESENT else last.resumed_bytes
        return replace(
            last,
            phase=DownloadPhase.DONE if copied else DownloadPhase.ALREADY_PRESENT,
            path=target,
            size_bytes=size_bytes,
            held_bytes=size_bytes,
            resumed_bytes=before,
        )


async def _last_of(steps: AsyncGenerator[Progress, None], on_progress: OnProgress) -> Progress:
    """The last step, once the file is whole."""
    async with aclosing(steps):
        async for progress in steps:
            on_progress(progress)
            if progress.phase in _LAST:
                return progress
    raise DaemonUnavailableError("the daemon ended the download before it was done")


def _in_share(done: SmallDone) -> Progress:
    """The last progress of a small file in the daemon's shared folder."""
    phase = DownloadPhase.ALREADY_PRESENT if done.source is None else DownloadPhase.DONE
    return progress_of(done, Path(done.path), phase)
