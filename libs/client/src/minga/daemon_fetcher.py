"""Fetching through the daemon of this machine, which becomes a holder; then a copy to the target when there is one."""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing, suppress
from dataclasses import replace

from minga.control import ControlClient
from minga.copying import copy_into_place
from minga.fetching import (
    FetchItem,
    FetchOptions,
    OnItemProgress,
    OnProgress,
    after_earlier,
    make_folders_in_thread,
    run_batch,
    with_folders,
)
from minga_core.errors import ContentChangedError, DaemonUnavailableError, MingaError
from minga_core.names import Name
from minga_engine.progress import DownloadPhase, Progress

NAMES_A_CALL = 1_000
"""The contract's limit (control.proto)."""
COPIES_AT_ONCE = 8

_LAST = (DownloadPhase.DONE, DownloadPhase.ALREADY_PRESENT)


class DaemonFetcher:
    """Lets the daemon download, then copies to the target. Implements Fetcher."""

    def __init__(self, control: ControlClient, options: FetchOptions) -> None:
        self._control = control
        self._options = options

    async def fetch_small(self, items: Sequence[FetchItem], on_done: OnItemProgress) -> None:
        """Fetch each name once, in calls of 1,000 names, and copy it to each of its targets."""
        wanted: dict[Name, list[FetchItem]] = {}
        for item in items:
            wanted.setdefault(item.name, []).append(item)
        to_copy: dict[FetchItem, Progress] = {}
        names = list(wanted)
        with suppress(MingaError):
            for start in range(0, len(names), NAMES_A_CALL):
                async with aclosing(self._control.download_files(names[start : start + NAMES_A_CALL])) as steps:
                    async for done in steps:
                        for name, last in done:
                            for item in wanted.pop(name, ()):
                                if item.target is None:
                                    on_done(item, last)
                                else:
                                    to_copy[item] = last

        async def copy(item: FetchItem) -> None:
            on_done(item, await self._copy(item, to_copy[item]))

        await run_batch(await asyncio.to_thread(with_folders, list(to_copy)), copy, COPIES_AT_ONCE)

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
        steps = self._control.download(
            item.name, options.content_id, overwrite=options.overwrite, source_wait=options.wait
        )
        async with aclosing(steps):
            async for progress in steps:
                on_progress(progress)
                if progress.phase in _LAST:
                    return progress
        raise DaemonUnavailableError("the daemon ended the download before it was done")

    async def _copy(self, item: FetchItem, last: Progress) -> Progress:
        """Copy a downloaded file to the target; the progress then."""
        if last.path is None or item.target is None or last.content_id is None:
            raise DaemonUnavailableError("the daemon does not say where the file is, or which content it is")
        if self._options.content_id not in (None, last.content_id):
            raise ContentChangedError(
                f"the daemon has the content {last.content_id.short}, which is not the one wanted"
            )
        copied = await copy_into_place(last.path, item.target, last.content_id, overwrite=self._options.overwrite)
        size_bytes = (await asyncio.to_thread(item.target.stat)).st_size
        # What the daemon had before was not fetched by this call.
        before = size_bytes if last.phase is DownloadPhase.ALREADY_PRESENT else last.resumed_bytes
        return replace(
            last,
            phase=DownloadPhase.DONE if copied else DownloadPhase.ALREADY_PRESENT,
            path=item.target,
            size_bytes=size_bytes,
            held_bytes=size_bytes,
            resumed_bytes=before,
        )
