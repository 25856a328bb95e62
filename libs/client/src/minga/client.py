"""The client for programs without an event loop: `AsyncClient` on a loop in a thread of its own."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from datetime import timedelta
from functools import wraps
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, TypeVar

from minga.async_client import RETRY_BUDGET, AsyncClient
from minga.settings import ClientSettings

P = ParamSpec("P")
T = TypeVar("T")

PAGE = 1000
"""Items of a listing that are handed from thread to thread at once."""


def _waiting(
    method: Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, T]],
) -> "Callable[Concatenate[Client, P], T]":
    """The method of the same name that waits for the result."""

    @wraps(method)
    def call(self: "Client", /, *args: P.args, **options: P.kwargs) -> T:
        return self._run(method(self._client, *args, **options))

    return call


def _listing(
    method: Callable[Concatenate[AsyncClient, P], AsyncGenerator[T, None]],
) -> "Callable[Concatenate[Client, P], Iterator[T]]":
    """The method of the same name that iterates."""

    @wraps(method)
    def call(self: "Client", /, *args: P.args, **options: P.kwargs) -> Iterator[T]:
        return self._iterate(method(self._client, *args, **options))

    return call


class Client:
    """A client of a Minga network: `AsyncClient`, method by method, for programs without asyncio.

    A context manager. Arguments, results and errors are those of `AsyncClient`. Methods may be called from several
    threads; callbacks are called in a thread of the client and should return quickly. Ctrl-C during a call cancels it,
    and the same call resumes a transfer::

        with minga.Client() as client:
            client.put("model.bin", "models/model.bin", replicas=2)
            done = client.get("models/model.bin", "copy.bin")
            print(done.path, done.received_by_source)
    """

    ls = _listing(AsyncClient.ls)
    find = _listing(AsyncClient.find)
    info = _waiting(AsyncClient.info)
    peers = _listing(AsyncClient.peers)
    stats = _waiting(AsyncClient.stats)
    available = _waiting(AsyncClient.available)
    status = _waiting(AsyncClient.status)
    rm = _waiting(AsyncClient.rm)
    verify = _listing(AsyncClient.verify)
    uses_daemon = _waiting(AsyncClient.uses_daemon)
    get = _waiting(AsyncClient.get)
    get_many = _waiting(AsyncClient.get_many)
    put = _waiting(AsyncClient.put)
    put_many = _waiting(AsyncClient.put_many)

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

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        if self._loop is None:
            work.close()
            raise RuntimeError("a Client is used inside its `with` block")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
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
