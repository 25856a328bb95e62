"""Disk work off the event loop, and its errors as this project's."""

import asyncio
import errno
import os
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from minga_core.errors import NoSpaceError, StorageError

T = TypeVar("T")

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class DiskPool:
    """A bounded pool of threads for disk work and hashing. Threads are made as they are needed.

    For the thread of one event loop. It does what an executor of `concurrent.futures` with `wrap_future` does, for a
    third of the processor time: a chunk takes two jobs.
    """

    def __init__(self, threads: int, name: str = "disk") -> None:
        self.threads = threads
        self._name = f"minga-{name}"
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._workers: list[threading.Thread] = []
        self._unfinished = 0
        self._closed = False

    async def run(self, work: Callable[..., T], *arguments: Any) -> T:
        """Run `work`; its result. A cancelled caller continues only when work that has begun is over, so that what the
        work uses (a descriptor, a buffer) outlives it."""
        job = await self._run(work, arguments)
        result: T = job.result
        return result

    async def acquire(self, work: Callable[..., T], *arguments: Any, undo: Callable[[T], object]) -> T:
        """As `run`, for work that acquires something: `undo` is called with it when the caller was cancelled."""
        job = await self._run(work, arguments, undo)
        result: T = job.result
        return result

    async def _run(
        self, work: Callable[..., Any], arguments: tuple[Any, ...], undo: Callable[[Any], object] | None = None
    ) -> "_Job":
        if self._closed:
            raise RuntimeError("the pool is closed")
        loop = asyncio.get_running_loop()
        job = _Job(work, arguments, loop)
        self._unfinished += 1
        try:
            if self._unfinished > len(self._workers) < self.threads:
                self._add_worker()
            self._jobs.put(job)
            cancelled: asyncio.CancelledError | None = None
            while not job.over:
                job.waiter = loop.create_future()
                try:
                    await job.waiter
                except asyncio.CancelledError as error:
                    cancelled = error
                    if job.claim():
                        # It has not begun, and will not.
                        raise
        finally:
            self._unfinished -= 1
        if cancelled is not None:
            if job.error is None and undo is not None:
                undo(job.result)
            raise cancelled
        if job.error is not None:
            # The error refers to this frame, and must not be kept by it.
            failure, job.error = job.error, None
            try:
                raise failure
            finally:
                del failure
        return job

    def _add_worker(self) -> None:
        # Nothing waits for it at the end of the process but `close`.
        worker = threading.Thread(
            target=_work, args=(self._jobs,), name=f"{self._name}_{len(self._workers)}", daemon=True
        )
        self._workers.append(worker)
        worker.start()

    def close(self) -> None:
        """Waits for work that has begun; what has not is dropped, its callers cancelled. Idempotent."""
        self._closed = True
        with suppress(Empty):
            while (job := self._jobs.get_nowait()) is None or job.drop():
                pass
        for _ in self._workers:
            self._jobs.put(None)
        for worker in self._workers:
            worker.join()


class _Job:
    """Work for a thread, and its outcome."""

    __slots__ = ("_arguments", "_loop", "_unclaimed", "_work", "error", "over", "result", "waiter")

    def __init__(self, work: Callable[..., Any], arguments: tuple[Any, ...], loop: asyncio.AbstractEventLoop) -> None:
        self._work = work
        self._arguments = arguments
        self._loop = loop
        self._unclaimed = [True]
        self.over = False
        self.result: Any = None
        self.error: BaseException | None = None
        self.waiter: asyncio.Future[None] | None = None

    def claim(self) -> bool:
        """Whether nobody has claimed it before: one claims it to do it, or to have it never done. From any thread."""
        try:
            return self._unclaimed.pop()
        except IndexError:
            return False

    def do(self) -> None:
        """Do the work, in a thread, unless nobody waits for it any more."""
        if not self.claim():
            return
        try:
            self.result = self._work(*self._arguments)
        except BaseException as error:  # noqa: BLE001 - the caller raises it
            self.error = error
        self._end()

    def drop(self) -> bool:
        """Cancel its caller if it has not begun; true."""
        if self.claim():
            self.error = asyncio.CancelledError()
            self._end()
        return True

    def _end(self) -> None:
        # The loop may be closed, and so nobody wait.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        self.over = True
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)


def _work(jobs: "SimpleQueue[_Job | None]") -> None:
    """Do jobs until there is None."""
    while (job := jobs.get()) is not None:
        job.do()
        # Not kept alive, with all that it refers to, until the next one comes.
        del job


async def _until_done(work: asyncio.Future[Any]) -> None:
    """Returns once it is done, however it ended; cancelled, it leaves it alone. As `asyncio.wait`, for a third of the
    processor time: a chunk has several of them."""
    waiter = asyncio.get_running_loop().create_future()

    def wake(_: object) -> None:
        if not waiter.done():
            waiter.set_result(None)

    work.add_done_callback(wake)
    try:
        await waiter
    finally:
        work.remove_done_callback(wake)


async def uninterrupted(work: Coroutine[Any, Any, T]) -> T:
    """Run steps that must not stop half way; their result. A caller that is cancelled, however often, continues only at
    the end."""
    task = asyncio.create_task(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await _until_done(task)
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
