"""Disk work off the event loop, and its errors as this project's."""

import asyncio
import errno
import os
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import Context
from typing import Any, TypeVar

from minga_core.errors import NoSpaceError, StorageError

T = TypeVar("T")

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class DiskPool:
    """A bounded pool of threads for disk work and hashing."""

    def __init__(self, threads: int, name: str = "disk") -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=f"minga-{name}")
        self.threads = threads

    async def run(self, work: Callable[..., T], *arguments: Any) -> T:
        """Run `work`; its result. A cancelled caller continues only when work that has begun is over, so that what the
        work uses (a descriptor, a buffer) outlives it."""
        return await run_to_end(self._pool, work, *arguments)

    async def acquire(self, work: Callable[..., T], *arguments: Any, undo: Callable[[T], object]) -> T:
        """As `run`, for work that acquires something: `undo` is called with it when the caller was cancelled."""
        return await run_to_end(self._pool, work, *arguments, undo=undo)

    def close(self) -> None:
        """Waits for work that has begun; what has not is dropped. Idempotent."""
        self._pool.shutdown(wait=True, cancel_futures=True)


async def run_to_end(
    executor: Executor, work: Callable[..., T], *arguments: Any, undo: Callable[[T], object] | None = None
) -> T:
    """Run `work` in a thread; see `DiskPool.run` and `DiskPool.acquire`."""
    submitted = executor.submit(work, *arguments)
    job = asyncio.wrap_future(submitted)
    cancelled: asyncio.CancelledError | None = None
    while not job.done():
        try:
            await asyncio.wait((job,))
        except asyncio.CancelledError as error:
            cancelled = error
            # Drops work that has not begun. The wrapped future must not be cancelled instead: it would be done at once.
            submitted.cancel()
    if cancelled is None:
        return job.result()
    if not job.cancelled() and job.exception() is None and undo is not None:
        undo(job.result())
    raise cancelled


async def uninterrupted(work: Coroutine[Any, Any, T], context: Context | None = None) -> T:
    """Run steps that must not stop half way, in that context; their result. A caller that is cancelled, however often,
    continues only at the end."""
    task = asyncio.create_task(work, context=context)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is None:
        return task.result()
    if not task.cancelled() and (failure := task.exception()) is not None:
        raise cancelled from failure
    raise cancelled


class SharedDescriptor:
    """A file descriptor that is closed once its owner has called `close` and no user is left.

    A number that is closed while a thread reads from it may by then be another file. Only for the event loop's thread.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._users = 0
        self._closing = False

    @contextmanager
    def used(self) -> Iterator[int]:
        """The descriptor, open until the end of the block."""
        self._users += 1
        try:
            yield self._descriptor
        finally:
            self._users -= 1
            self._close_if_unused()

    def close(self) -> None:
        """Close it as soon as it has no user. Idempotent."""
        self._closing = True
        self._close_if_unused()

    def _close_if_unused(self) -> None:
        if self._closing and self._users == 0 and self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


@contextmanager
def storage_errors(what: str) -> Iterator[None]:
    """Raise OSErrors of the block as NoSpaceError or StorageError. what: a clause such as `cannot write a/b.bin`."""
    try:
        yield
    except OSError as error:
        raise storage_error(error, what) from error


def storage_error(error: OSError, what: str) -> NoSpaceError | StorageError:
    """Our error for an OSError. what: a clause such as `cannot write a/b.bin`."""
    reason = (error.strerror or str(error)).lower()
    if error.errno in _NO_SPACE:
        return NoSpaceError(
            f"{what}: {reason}", hint="make room on the disk and try again; what was there is untouched"
        )
    return StorageError(f"{what}: {reason}")
