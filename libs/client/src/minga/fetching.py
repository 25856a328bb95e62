"""Fetching files: the port that a way to fetch implements, and how many files go through it at once.

There are two ways: `daemon_fetcher` lets the daemon of this machine download, `standalone` downloads by itself.
`AsyncClient` chooses between them; nothing else does.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import Generic, Protocol, TypeVar

from minga.origin_urls import OriginUrl
from minga_core.errors import AlreadyRunningError, MingaError, StorageError
from minga_core.ids import ContentId
from minga_core.names import Name
from minga_engine.parts.files import check_replaceable, fsync_folder
from minga_engine.progress import DownloadPhase, Progress, SmallDone
from minga_runtime.tasks import all_of

T = TypeVar("T")
R = TypeVar("R")

AT_ONCE = 8
"""Files fetched at once, each with calls of its own: small ones are bound by round trips, not by bytes."""
SMALL_BYTES = 256 * 1024
"""Files of at most this size are one chunk, and are fetched many in one call (docs/http.md)."""
BATCH_FILES = 2_000
"""Small files that are fetched together: as many as one call takes."""

ENDING_LIMIT_SECONDS = 5.0
"""A cancelled download keeps its part open until its writes are on the disk."""
ENDING_POLL_SECONDS = 0.1
MAX_POLL_SECONDS = 2.0
"""Each look asks the locator."""

_BASE = PurePosixPath()


@dataclass(frozen=True, slots=True)
class FetchItem:
    """One file to fetch.

    >>> item = minga.FetchItem(minga.parse_name("models/model.bin"), base=Path("data"), relative=PurePosixPath("m.bin"))
    >>> item.target
    PosixPath('data/m.bin')
    """

    name: Name
    size_bytes: int = 0
    """As listed; 0 when it is not known."""
    base: Path | None = None
    """A folder that the file may not leave, whatever links are in it; None: the daemon's shared folder."""
    relative: PurePosixPath = _BASE
    """Where below `base`."""
    origin: OriginUrl | None = None
    """Where it is fetched from instead of the network; `name` is then what a copy of it is called."""
    target: Path | None = field(init=False, repr=False, compare=False)
    """Path of the file; None: wherever the daemon has it in its shared folder."""

    def __post_init__(self) -> None:
        # Once: joining paths takes as long as everything else that becomes of a small file here.
        object.__setattr__(self, "target", self.base / self.relative if self.base is not None else None)

    def __hash__(self) -> int:
        return hash(self.name)


@dataclass(frozen=True, slots=True)
class FetchOptions:
    """What holds for every file of one call."""

    content_id: ContentId | None = None
    """The version; None: the newest."""
    overwrite: bool = False
    wait: timedelta | None = None
    """How long to wait for a source, 0 for ever; None: as set."""


@dataclass(frozen=True, slots=True)
class Outcome(Generic[T, R]):
    """How one item of several ended: with a result or with an error; the other one is None.

    >>> (outcome,) = client.get_many([minga.FetchItem(minga.parse_name("nothing"))])
    >>> type(outcome.error).__name__
    'FileNotFoundInDirectoryError'
    """

    item: T
    result: R | None
    error: MingaError | None


OnProgress = Callable[[Progress], None]
OnItemProgress = Callable[[FetchItem, Progress], None]


def progress_of(done: SmallDone, path: Path, phase: DownloadPhase) -> Progress:
    """The last progress of a small file at that path: all of it came from one source, or was there before."""
    size_bytes = done.size_bytes
    fetched = {done.source: size_bytes} if done.source is not None else {}
    resumed_bytes = 0 if fetched else size_bytes
    return Progress(phase, size_bytes, size_bytes, resumed_bytes, fetched, content_id=done.content_id, path=path)


class Fetcher(Protocol):
    """A way to fetch files."""

    async def fetch_small(self, batches: AsyncIterator[list[FetchItem]], on_done: OnItemProgress) -> None:
        """Fetch small files, a batch of BATCH_FILES at most in a call, and report each that is in place.

        Several may take batches from the one iterator.

        Best effort: what is not reported is left to `fetch`. Raises no MingaError.
        """
        ...

    async def fetch(self, item: FetchItem, on_progress: OnProgress) -> Progress:
        """Fetch one file; the last progress, once it is whole and in place. Raises what `AsyncClient.get` raises."""
        ...


async def fetch_all(
    fetcher: Fetcher, items: AsyncIterable[FetchItem], on_progress: OnItemProgress, on_end: Callable[[FetchItem], None]
) -> list[Outcome[FetchItem, Progress]]:
    """Fetch small files many in a call, while more items come; the others, and what a call left, each on its own.

    on_end: called once for each item, done or failed. Outcomes are in the order of the items.
    """
    places: dict[FetchItem, int] = {}
    large: dict[FetchItem, None] = {}
    done: dict[FetchItem, Progress] = {}
    outcomes: list[Outcome[FetchItem, Progress]] = []
    batches = _Batches()

    def record(item: FetchItem, progress: Progress) -> None:
        done[item] = progress
        on_progress(item, progress)
        on_end(item)

    async def fetch(item: FetchItem) -> Progress:
        try:
            return await fetcher.fetch(item, lambda progress: on_progress(item, progress))
        finally:
            on_end(item)

    async def fetch_each(some: Sequence[FetchItem]) -> None:
        outcomes.extend(await run_batch(some, fetch, min(AT_ONCE, len(some))))

    async def sort() -> None:
        async for item in items:
            places[item] = len(places)
            if item.size_bytes > SMALL_BYTES or item.origin:
                large[item] = None
            else:
                batches.add(item)
        # A call for many has no progress within a file: a single file is not worth one.
        batches.end(worthwhile=len(places) > 1)
        await fetch_each(list(large))

    await all_of([sort(), fetcher.fetch_small(batches, record)], "fetch")
    await fetch_each([item for item in places if item not in done and item not in large])
    outcomes += [Outcome(item, progress, None) for item, progress in done.items()]
    return sorted(outcomes, key=lambda outcome: places[outcome.item])


class _Batches:
    """Small files to fetch, in batches, which may be taken while there come more. An asynchronous iterator."""

    def __init__(self) -> None:
        self._last: list[FetchItem] = []
        self._ready: asyncio.Queue[list[FetchItem] | None] = asyncio.Queue()

    def add(self, item: FetchItem) -> None:
        """Add one."""
        self._last.append(item)
        if len(self._last) == BATCH_FILES:
            self._ready.put_nowait(self._last)
            self._last = []

    def end(self, *, worthwhile: bool) -> None:
        """No more come. worthwhile: whether the last batch is to be taken."""
        if self._last and worthwhile:
            self._ready.put_nowait(self._last)
        self._ready.put_nowait(None)

    def __aiter__(self) -> "_Batches":
        return self

    async def __anext__(self) -> list[FetchItem]:
        batch = await self._ready.get()
        if batch is None:
            # For the next one who asks.
            self._ready.put_nowait(None)
            raise StopAsyncIteration
        return batch


def with_folders(items: Sequence[FetchItem]) -> list[FetchItem]:
    """Make the folders above the targets; the items for which that went well. Blocking."""
    made: dict[tuple[Path | None, str], bool] = {}
    ready: list[FetchItem] = []
    for item in items:
        folder = item.base, os.path.dirname(item.target or "")
        if folder not in made:
            made[folder] = _has_folders(item)
        if made[folder]:
            ready.append(item)
    return ready


def _has_folders(item: FetchItem) -> bool:
    try:
        make_folders(item)
    except StorageError:
        return False
    return True


def make_folders(item: FetchItem) -> None:
    """Make the folders above the target, durably. Blocking.

    Raises StorageError when that is not possible, when the target is anything but a file, or when a symbolic link on
    the way leads out of the base: the names come from others.
    """
    if item.base is None or item.target is None:
        return
    try:
        for folder in (*reversed(item.base.parents), item.base):
            _make_folder(folder)
        root, folder = item.base.resolve(), item.base
        for part in item.relative.parent.parts:
            folder = folder / part
            _make_folder(folder)
            if not folder.resolve().is_relative_to(root):
                raise StorageError(f"{folder} is a link that leads out of {item.base}; nothing was written")
        check_replaceable(item.target)
    except OSError as error:
        raise StorageError(f"cannot write {item.target}: {(error.strerror or str(error)).lower()}") from error


def _make_folder(folder: Path) -> None:
    """Make a folder that is not there. Raises OSError, also when something else is there."""
    if folder.is_dir():
        return
    try:
        with fsync_folder(folder.parent):
            folder.mkdir()
    except FileExistsError:
        # Another process may have made it meanwhile.
        if not folder.is_dir():
            raise


async def make_folders_in_thread(item: FetchItem) -> None:
    """`make_folders` without blocking the event loop; nothing to do without a target."""
    if item.base is not None:
        await asyncio.to_thread(make_folders, item)


async def after_earlier(
    fetch: Callable[[], Awaitable[R]],
    limit_seconds: float = ENDING_LIMIT_SECONDS,
    on_wait: Callable[[], None] = lambda: None,
) -> R:
    """Run `fetch`; again, up to a limit, as long as another download of that file is under way: Ctrl-C and the same
    command once more, or the same command twice.

    Raises AlreadyRunningError when it goes on longer. on_wait: called before each pause.
    """
    give_up, pause_seconds = time.monotonic() + limit_seconds, ENDING_POLL_SECONDS
    while True:
        try:
            return await fetch()
        except AlreadyRunningError:
            if time.monotonic() > give_up:
                raise
        on_wait()
        await asyncio.sleep(pause_seconds)
        pause_seconds = min(1.5 * pause_seconds, MAX_POLL_SECONDS)


async def run_batch(items: Iterable[T], work: Callable[[T], Awaitable[R]], at_once: int) -> list[Outcome[T, R]]:
    """Run `work` on every item; outcomes in the order of the items. Any error but MingaError ends the batch."""
    queue = enumerate(items)
    outcomes: dict[int, Outcome[T, R]] = {}
    await all_of((_worker(queue, work, outcomes) for _ in range(at_once)), "batch")
    return [outcomes[index] for index in sorted(outcomes)]


async def _worker(
    queue: Iterator[tuple[int, T]], work: Callable[[T], Awaitable[R]], outcomes: dict[int, Outcome[T, R]]
) -> None:
    for index, item in queue:
        try:
            outcomes[index] = Outcome(item, await work(item), None)
        except MingaError as error:
            outcomes[index] = Outcome(item, None, error)
