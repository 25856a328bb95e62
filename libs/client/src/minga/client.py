"""The client for programs without an event loop: `AsyncClient` on a loop in a thread of its own."""

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import wraps
from pathlib import Path
from threading import Lock, Thread
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, Literal, ParamSpec, TypeVar, overload
from weakref import WeakSet

from minga.async_client import AsyncClient, ignore
from minga.connecting import RETRY_BUDGET
from minga.settings import ClientSettings
from minga_core.ids import ContentId

if TYPE_CHECKING:
    from io import BufferedReader

    from minga.blocking import WritableFile
    from minga_engine.progress import PutProgress

P = ParamSpec("P")
T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

PAGE = 1000
"""Items of a listing that are handed from thread to thread at once."""


def _waiting(
    method: Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, T]],
) -> "Callable[Concatenate[Client, P], T]":
    """The method of the same name that waits for the result."""

    @wraps(method)
    def call(self: "Client", /, *args: P.args, **options: P.kwargs) -> T:
        loop = self._started()
        return self._run(loop, method(self._client, *args, **options))

    return _with_blocking_examples(call)


def _listing(
    method: Callable[Concatenate[AsyncClient, P], AsyncGenerator[T, None]], page: int = PAGE
) -> "Callable[Concatenate[Client, P], Iterator[T]]":
    """The method of the same name that iterates. page: items that are waited for together."""

    @wraps(method)
    def call(self: "Client", /, *args: P.args, **options: P.kwargs) -> Iterator[T]:
        loop = self._started()
        return self._iterate(loop, method(self._client, *args, **options), page)

    return _with_blocking_examples(call)


def _with_blocking_examples(method: F) -> F:
    """`method`, with the examples of its docstring for a program without asyncio."""
    text, prompt, examples = (method.__doc__ or "").partition(">>>")
    method.__doc__ = text + prompt + examples.replace("await ", "").replace("async ", "")
    return method


class Client:
    """A client of a Minga network: `AsyncClient`, method by method, for programs without asyncio.

    Arguments, results and errors are those of `AsyncClient`. It connects when first used, and `close` or the end of a
    `with` block ends its connections and its thread. Methods may be called from several threads; callbacks are called
    in a thread of the client and should return quickly. Ctrl-C during a call cancels it, and the same call resumes a
    transfer.

    It may be pickled, which keeps the settings and no connection. After a `fork` the child's copy connects anew;
    docs/python.md says what works there.

    >>> with minga.Client() as client:
    ...     [file.name for file in client.ls("models/")]
    ['models/model.bin', 'models/small/model.bin']
    """

    ls = _listing(AsyncClient.ls)
    find = _listing(AsyncClient.find)
    walk = _listing(AsyncClient.walk, page=1)
    watch = _listing(AsyncClient.watch, page=1)
    stat = _waiting(AsyncClient.stat)
    info = _waiting(AsyncClient.info)
    peers = _listing(AsyncClient.peers)
    stats = _waiting(AsyncClient.stats)
    available = _waiting(AsyncClient.available)
    status = _waiting(AsyncClient.status)
    rm = _waiting(AsyncClient.rm)
    verify = _listing(AsyncClient.verify, page=1)
    uses_daemon = _waiting(AsyncClient.uses_daemon)
    get = _waiting(AsyncClient.get)
    get_many = _waiting(AsyncClient.get_many)
    put = _waiting(AsyncClient.put)
    cp = _waiting(AsyncClient.cp)
    put_many = _waiting(AsyncClient.put_many)
    preheat = _waiting(AsyncClient.preheat)

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
        self._begin()

    def _begin(self) -> None:
        self._lock = Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: Thread | None = None
        self._closed = False
        _CLIENTS.add(self)

    def __getstate__(self) -> AsyncClient:
        return self._client

    def __setstate__(self, client: AsyncClient) -> None:
        self._client = client
        self._begin()

    def __enter__(self) -> "Client":
        self._started()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @overload
    def open(
        self, name: str | ContentId, mode: Literal["rb"] = "rb", *, wait: timedelta | None = None
    ) -> "BufferedReader": ...

    @overload
    def open(
        self,
        name: str,
        mode: Literal["wb", "xb"],
        *,
        replicas: int = 1,
        on_progress: "Callable[[PutProgress], None]" = ignore,
    ) -> "WritableFile": ...

    def open(
        self,
        name: str | ContentId,
        mode: str = "rb",
        *,
        wait: timedelta | None = None,
        replicas: int = 1,
        on_progress: "Callable[[PutProgress], None]" = ignore,
    ) -> "BufferedReader | WritableFile":
        """Open a file, as Python's `open`: seekable, and a context manager.

        rb: bytes are fetched as they are read, and verified; see `AsyncClient.open`. wb: written to a temporary file,
        and uploaded to `replicas` peers when it is closed; after an error in the block it is discarded. xb: as wb, and
        closing raises NameTakenError when another content has that name. Errors are those of `AsyncClient.open` and
        `put`; ValueError for another mode.

        >>> with client.open("models/model.bin") as file:
        ...     file.seek(-4, 2)
        ...     file.read()
        10
        b'tion'
        """
        from io import BufferedReader

        from minga.blocking import BUFFER_BYTES, RawFile, WritableFile
        from minga.writing import Draft

        loop = self._started()
        if mode == "rb":
            file = self._run(loop, self._client.open(name, wait=wait))
            return BufferedReader(RawFile(file, _FilesLoop(self, loop), str(name)), BUFFER_BYTES)
        if mode not in ("wb", "xb"):
            raise ValueError(f"invalid mode {mode!r} (rb, wb or xb)")
        upload = self._client._upload(str(name), replicas, on_progress, overwrite=mode == "wb")
        return WritableFile(Draft(upload), _FilesLoop(self, loop), str(name))

    def close(self) -> None:
        """End connections and the thread. The client cannot be used any more; closing it again does nothing.

        >>> client = minga.Client()
        >>> client.close()
        """
        with self._lock:
            loop, thread, self._closed = self._loop, self._thread, True
            self._loop = self._thread = None
        if loop is None or thread is None:
            return
        try:
            self._run(loop, self._client.aclose())
            self._run(loop, loop.shutdown_asyncgens())
            self._run(loop, loop.shutdown_default_executor())
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()

    @property
    def settings(self) -> ClientSettings:
        """The settings that hold.

        >>> minga.Client(locator="http://10.0.0.1:50052").settings.locator
        'http://10.0.0.1:50052'
        """
        return self._client.settings

    def _started(self) -> asyncio.AbstractEventLoop:
        """The loop, with its thread. Raises RuntimeError once this is closed."""
        with self._lock:
            if self._closed:
                raise RuntimeError("this minga.Client is closed")
            if self._loop is not None:
                return self._loop
            loop = asyncio.new_event_loop()
            thread = Thread(target=loop.run_forever, name="minga-client", daemon=True)
            thread.start()
            try:
                self._run(loop, self._client.__aenter__())
            except BaseException:
                loop.call_soon_threadsafe(loop.stop)
                thread.join()
                loop.close()
                raise
            self._loop, self._thread = loop, thread
            return loop

    @staticmethod
    def _run(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(work, loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def _iterate(self, loop: asyncio.AbstractEventLoop, items: AsyncGenerator[T, None], page: int) -> Iterator[T]:
        try:
            while some := self._run(loop, _next_items(items, page)):
                yield from some
        finally:
            if self._loop is loop:
                self._run(loop, _close(items))

    def _forget(self) -> None:
        """Begin anew, in a child process: the parent's thread is not here."""
        _OF_PARENTS.append((self._client, self._loop))
        self._client, closed = self._client.copy(), self._closed
        self._begin()
        self._closed = closed


@dataclass(frozen=True, slots=True)
class _FilesLoop:
    """Implements Loop."""

    client: Client
    loop: asyncio.AbstractEventLoop

    def wait(self, work: Coroutine[Any, Any, T], /) -> T:
        """See Loop."""
        if self.client._loop is not self.loop:
            work.close()
            raise ValueError("the client of this file is closed, or another process's")
        return self.client._run(self.loop, work)

    def begin(self, work: Coroutine[Any, Any, object], /) -> None:
        """See Loop."""
        if self.client._loop is self.loop:
            asyncio.run_coroutine_threadsafe(work, self.loop)
        else:
            work.close()


async def _next_items(items: AsyncGenerator[T, None], page: int) -> list[T]:
    """The next items, a page at most: one change of threads for each would cost more than the items."""
    some: list[T] = []
    while len(some) < page:
        try:
            some.append(await anext(items))
        except StopAsyncIteration:
            break
    return some


async def _close(items: AsyncGenerator[T, None]) -> None:
    await items.aclose()


_CLIENTS: "WeakSet[Client]" = WeakSet()
_OF_PARENTS: list[object] = []
"""Kept in a child process: what would be finalised closes descriptors, and an epoll that parent and child share."""


def _forget_all() -> None:
    for client in list(_CLIENTS):
        client._forget()


os.register_at_fork(after_in_child=_forget_all)
