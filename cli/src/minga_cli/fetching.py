"""How `minga get` fetches files: through the daemon, so that this machine becomes a holder, or on its own."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from minga_cli.batch import run_batch
from minga_cli.targets import FetchItem, make_room, with_room
from minga_core.errors import DaemonUnavailableError, MingaError
from minga_core.ids import ContentId
from minga_core.names import Name
from minga_engine.progress import DownloadPhase, Progress

if TYPE_CHECKING:
    from minga.control import ControlClient
    from minga.standalone import TransferClient
    from minga_engine.progress import SmallDone

OnProgress = Callable[[Progress], None]
OnItemDone = Callable[[FetchItem, Progress], None]

NAMES_A_CALL = 1_000
"""The contract's limit (control.proto)."""
COPIES_AT_ONCE = 8

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

    async def fetch_small(self, items: Sequence[FetchItem], on_done: OnItemDone) -> None:
        """Fetches small files together, as far as they go without trouble; `on_done` hears of those that are in their
        places. The others are left to `fetch`. Raises nothing of ours."""
        ...

    async def fetch(self, item: FetchItem, on_progress: OnProgress) -> Progress:
        """Returns once the file is whole and in its place; the last progress. Raises as the daemon's Download does."""
        ...


class DaemonFetcher:
    """Lets the daemon download, then copies to the target when there is one."""

    def __init__(self, control: "ControlClient", options: FetchOptions) -> None:
        self._control = control
        self._options = options

    async def fetch_small(self, items: Sequence[FetchItem], on_done: OnItemDone) -> None:
        """See Fetcher. A file that goes to several places is fetched once, and copied to each."""
        fetched: list[tuple[FetchItem, Progress]] = []
        wanted: dict[Name, list[FetchItem]] = {}
        for item in items:
            wanted.setdefault(item.name, []).append(item)
        names = list(wanted)
        with suppress(MingaError):
            for start in range(0, len(names), NAMES_A_CALL):
                steps = self._control.download_files(names[start : start + NAMES_A_CALL])
                async with aclosing(steps):
                    async for done in steps:
                        for name, last in done:
                            fetched += [(item, last) for item in wanted.pop(name, ())]
                            while fetched and fetched[-1][0].target is None:
                                on_done(*fetched.pop())
        await self._copy_all(fetched, on_done)

    async def _copy_all(self, fetched: Sequence[tuple[FetchItem, Progress]], on_done: OnItemDone) -> None:
        """Copies what the daemon has to where it is wanted, as far as that goes without trouble."""
        ready = await asyncio.to_thread(with_room, [item for item, _ in fetched])
        last_of = dict(fetched)

        async def copy(item: FetchItem) -> None:
            on_done(item, await self._delivered(item, last_of[item], lambda progress: None))

        await run_batch(ready, copy, COPIES_AT_ONCE)

    async def fetch(self, item: FetchItem, on_progress: OnProgress) -> Progress:
        """See Fetcher."""
        await asyncio.to_thread(make_room, item)
        return await self._delivered(item, await self._download(item, on_progress), on_progress)

    async def _delivered(self, item: FetchItem, last: Progress, on_progress: OnProgress) -> Progress:
        """Copies what the daemon has to the target, when there is one; the progress then."""
        if item.target is None:
            return last
        if last.path is None:
            raise DaemonUnavailableError("the daemon does not say where the file is")
        from minga_cli.copying import copy_into_place

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

    def __init__(self, client: "TransferClient", options: FetchOptions, patience: timedelta | None) -> None:
        self._client = client
        self._options = options
        self._patience = patience
        """None: for ever."""

    async def fetch_small(self, items: Sequence[FetchItem], on_done: OnItemDone) -> None:
        """See Fetcher."""
        wanted: dict[Name, FetchItem] = {}
        for item in await asyncio.to_thread(with_room, items):
            wanted.setdefault(item.name, item)

        def told(done: "list[SmallDone]") -> None:
            for one in done:
                on_done(wanted[one.name], _progress_of(one))

        await self._client.get_small({name: item.target for name, item in wanted.items() if item.target}, told)

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


def _progress_of(done: "SmallDone") -> Progress:
    """The last progress of a file that came whole from one source."""
    fetched = {done.source: done.size_bytes} if done.source is not None else {}
    return Progress(
        DownloadPhase.DONE, done.size_bytes, done.size_bytes, 0, fetched, content_id=done.content_id, path=done.path
    )
