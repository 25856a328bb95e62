"""The client for programs without an event loop: `AsyncClient` on a loop in a thread of its own."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Future
from datetime import timedelta
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from minga.async_client import RETRY_BUDGET, AsyncClient, FileInfo, ignore
from minga.settings import ClientSettings
from minga_core.ids import ContentId
from minga_engine.wire.locator import DirectoryFigures, ListedFile, ListedPeer

if TYPE_CHECKING:
    from minga.control import DaemonStatus
    from minga.fetching import FetchItem, Outcome
    from minga.putting import PutItem
    from minga_engine.progress import Progress, PutProgress, PutResult

T = TypeVar("T")

PAGE = 1000
"""Items of a listing that are handed over at once."""


class Client:
    """A client of a Minga network: `AsyncClient`, method by method, for programs without asyncio.

    A context manager. Arguments, results and errors are those of `AsyncClient`; its docstrings have the details.
    Methods may be called from several threads; callbacks are called in a thread of the client and should return
    quickly. Ctrl-C during a call cancels it, and the same call resumes a transfer::

        with minga.Client() as client:
            client.put("model.bin", "models/model.bin", replicas=2)
            done = client.get("models/model.bin", "copy.bin")
            print(done.path, done.received_by_source)
    """

    def __init__(
        self,
        settings: ClientSettings | None = None,
        *,
        locator: str | None = None,
        control: Path | None = None,
        standalone: bool = False,
        retry_budget: timedelta = RETRY_BUDGET,
    ) -> None:
        self._client = AsyncClient(
            settings, locator=locator, control=control, standalone=standalone, retry_budget=retry_budget
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: Thread | None = None

    def __enter__(self) -> "Client":
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name="minga-client", daemon=True)
        self._thread.start()
        self._run(self._client.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        loop, thread = self._loop, self._thread
        if loop is None or thread is None:
            return
        try:
            self._run(self._client.__aexit__(kind, error, trace))
            self._run(loop.shutdown_asyncgens())
            self._run(loop.shutdown_default_executor())
        finally:
            self._loop = None
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()

    @property
    def settings(self) -> ClientSettings:
        """The settings that hold."""
        return self._client.settings

    def ls(self, prefix: str = "") -> Iterator[ListedFile]:
        """List the names that begin with `prefix`, in byte order."""
        return self._iterate(self._client.ls(prefix))

    def find(self, pattern: str) -> Iterator[ListedFile]:
        """List the names that contain `pattern`, or match it when it is a glob."""
        return self._iterate(self._client.find(pattern))

    def info(self, name: str | ContentId) -> FileInfo:
        """Look up the versions and holders of a name, or of a content by its id."""
        return self._run(self._client.info(name))

    def peers(self) -> Iterator[ListedPeer]:
        """List the living peers in order of their ids."""
        return self._iterate(self._client.peers())

    def stats(self) -> DirectoryFigures:
        """Look up the directory's totals."""
        return self._run(self._client.stats())

    def available(self) -> bool:
        """Whether a daemon runs on this machine."""
        return self._run(self._client.available())

    def status(self) -> "DaemonStatus":
        """What the daemon of this machine is, holds and does."""
        return self._run(self._client.status())

    def rm(self, name: str) -> None:
        """Delete a file from this machine's shared folder."""
        self._run(self._client.rm(name))

    def get(
        self,
        name: str,
        target: Path | str | None = None,
        *,
        content_id: ContentId | None = None,
        overwrite: bool = False,
        wait: timedelta | None = None,
        on_progress: "Callable[[Progress], None]" = ignore,
    ) -> "Progress":
        """Fetch a file from all peers that have any part of it; the last progress, with its path and its sources."""
        return self._run(
            self._client.get(
                name, target, content_id=content_id, overwrite=overwrite, wait=wait, on_progress=on_progress
            )
        )

    def get_many(
        self, items: "Sequence[FetchItem]", *, overwrite: bool = False, wait: timedelta | None = None
    ) -> "list[Outcome[FetchItem, Progress]]":
        """Fetch many files at once; an outcome for each, in the order of the items."""
        return self._run(self._client.get_many(items, overwrite=overwrite, wait=wait))

    def put(
        self,
        path: Path | str,
        name: str | None = None,
        *,
        replicas: int = 1,
        overwrite: bool = False,
        on_progress: "Callable[[PutProgress], None]" = ignore,
    ) -> "PutResult":
        """Upload a file; returns once `replicas` peers hold it and the locator names them."""
        return self._run(self._client.put(path, name, replicas=replicas, overwrite=overwrite, on_progress=on_progress))

    def put_many(
        self, items: "Sequence[PutItem]", *, replicas: int = 1, overwrite: bool = False
    ) -> "list[Outcome[PutItem, PutResult]]":
        """Upload many files at once; an outcome for each, in the order of the items."""
        return self._run(self._client.put_many(items, replicas=replicas, overwrite=overwrite))

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        if self._loop is None:
            work.close()
            raise RuntimeError("a Client is used inside its `with` block")
        future: Future[T] = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def _iterate(self, items: AsyncGenerator[T, None]) -> Iterator[T]:
        try:
            while some := self._run(_next_items(items)):
                yield from some
        finally:
            if self._loop is not None:
                self._run(_close(items))


async def _next_items(items: AsyncGenerator[T, None]) -> list[T]:
    """The next items, a page at most: one change of threads for each would cost more than the items."""
    some: list[T] = []
    while len(some) < PAGE:
        try:
            some.append(await anext(items))
        except StopAsyncIteration:
            break
    return some


async def _close(items: AsyncGenerator[T, None]) -> None:
    await items.aclose()
