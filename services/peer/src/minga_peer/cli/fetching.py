"""How `minga get` fetches one file: through the daemon, so that this machine becomes a holder, or on its own."""

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Protocol

from minga_core.errors import DaemonUnavailableError
from minga_core.ids import ContentId
from minga_peer.cli.copying import copy_into_place
from minga_peer.cli.targets import FetchItem, make_room
from minga_peer.clients.control import ControlClient
from minga_peer.transfer.client import TransferClient
from minga_peer.transfer.progress import DownloadPhase, Progress

OnProgress = Callable[[Progress], None]

_LAST = (DownloadPhase.DONE, DownloadPhase.ALREADY_PRESENT)


@dataclass(frozen=True, slots=True)
class FetchOptions:
    """What holds for every file of one command."""

    content_id: ContentId | None = None
    overwrite: bool = False
    wait: timedelta | None = None
    """How long to wait for a source, 0 for ever; None: as set."""


class Fetcher(Protocol):
    """A way to fetch."""

    async def fetch(self, item: FetchItem, on_progress: OnProgress) -> Progress:
        """Returns once the file is whole and in its place; the last progress. Raises as the daemon's Download does."""
        ...


class DaemonFetcher:
    """Lets the daemon download, then copies to the target when there is one."""

    def __init__(self, control: ControlClient, options: FetchOptions) -> None:
        self._control = control
        self._options = options

    async def fetch(self, item: FetchItem, on_progress: OnProgress) -> Progress:
        """See Fetcher."""
        await asyncio.to_thread(make_room, item)
        last = await self._download(item, on_progress)
        if item.target is None:
            return last
        if last.path is None:
            raise DaemonUnavailableError("the daemon does not say where the file is")
        on_progress(replace(last, phase=DownloadPhase.FINISHING))
        copied = await copy_into_place(last.path, item.target, last.content_id, overwrite=self._options.overwrite)
        size_bytes = (await asyncio.to_thread(item.target.stat)).st_size
        return _copied(last, item.target, size_bytes) if copied else _already(last, item.target, size_bytes)

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


def _copied(last: Progress, target: Path, size_bytes: int) -> Progress:
    """A copy is there. What the daemon had before was not fetched by this command."""
    before = size_bytes if last.phase is DownloadPhase.ALREADY_PRESENT else last.resumed_bytes
    return replace(
        last,
        phase=DownloadPhase.DONE,
        path=target,
        size_bytes=size_bytes,
        held_bytes=size_bytes,
        resumed_bytes=before,
    )


def _already(last: Progress, target: Path, size_bytes: int) -> Progress:
    return replace(_copied(last, target, size_bytes), phase=DownloadPhase.ALREADY_PRESENT)


class StandaloneFetcher:
    """Downloads straight to the target; nobody is served from there."""

    def __init__(self, client: TransferClient, options: FetchOptions, patience: timedelta | None) -> None:
        self._client = client
        self._options = options
        self._patience = patience
        """None: for ever."""

    async def fetch(self, item: FetchItem, on_progress: OnProgress) -> Progress:
        """See Fetcher."""
        if item.target is None:
            raise ValueError("without a daemon a file needs a target")
        await asyncio.to_thread(make_room, item)
        return await self._client.get(
            item.name,
            item.target,
            content_id=self._options.content_id,
            overwrite=self._options.overwrite,
            source_wait=self._patience,
            on_progress=on_progress,
        )
