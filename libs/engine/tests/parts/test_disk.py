"""Threads and descriptors: nothing is taken away from work that has begun."""

import asyncio
import errno
import os
import threading
from pathlib import Path

import pytest

from minga_core.errors import NoSpaceError, StorageError
from minga_engine.parts.disk import DiskPool, SharedDescriptor, storage_error, uninterrupted

from .support import eventually


async def test_a_cancelled_caller_waits_for_work_that_has_begun() -> None:
    """1. Work begins. 2. Its caller is cancelled, twice. 3. Only when the work ends is the caller let go."""
    pool, begun, go = DiskPool(1), threading.Event(), threading.Event()

    def work() -> str:
        begun.set()
        go.wait(10)
        return "done"

    caller = asyncio.create_task(pool.run(work))
    await eventually(begun.is_set, "the work has begun")
    for _ in range(2):
        caller.cancel()
        await asyncio.wait((caller,), timeout=0.02)
        assert not caller.done()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await caller
    pool.close()


async def test_steps_that_must_not_stop_half_way_outlast_two_cancellations() -> None:
    """As the work of one thread does."""
    go, ended = asyncio.Event(), list[bool]()

    async def steps() -> None:
        await go.wait()
        ended.append(True)

    caller = asyncio.create_task(uninterrupted(steps()))
    for _ in range(2):
        await asyncio.sleep(0)
        caller.cancel()
        await asyncio.wait((caller,), timeout=0.02)
        assert not caller.done()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert ended == [True]


async def test_work_that_has_not_begun_ends_with_its_caller_or_the_pool() -> None:
    """1. One job holds the only thread. 2. A caller that waits for another is cancelled, and let go at once. 3. The
    pool is closed: a third caller is cancelled. Neither job is ever done."""
    pool, begun, go, done = DiskPool(1), threading.Event(), threading.Event(), list[str]()

    def work() -> None:
        begun.set()
        go.wait(10)

    first = asyncio.create_task(pool.run(work))
    await eventually(begun.is_set, "the work has begun")
    second, third = (asyncio.create_task(pool.run(done.append, name)) for name in ("second", "third"))
    await asyncio.sleep(0)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    closing = asyncio.create_task(asyncio.to_thread(pool.close))
    with pytest.raises(asyncio.CancelledError):
        await third
    go.set()
    await asyncio.gather(first, closing)
    assert not done
    with pytest.raises(RuntimeError):
        await pool.run(done.append, "late")


async def test_an_error_of_the_work_is_its_callers() -> None:
    """And the thread goes on."""
    pool = DiskPool(1)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            await pool.run(divmod, 1, 0)
    assert await pool.run(divmod, 7, 2) == (3, 1)
    pool.close()


async def test_what_a_cancelled_caller_acquired_is_given_back() -> None:
    """A file that was being opened when its reader went away is closed."""
    pool, begun, go = DiskPool(1), threading.Event(), threading.Event()
    given_back: list[str] = []

    def work() -> str:
        begun.set()
        go.wait(10)
        return "it"

    caller = asyncio.create_task(pool.acquire(work, undo=given_back.append))
    await eventually(begun.is_set, "the work has begun")
    caller.cancel()
    await asyncio.sleep(0)
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert given_back == ["it"]
    pool.close()


def test_a_descriptor_in_use_outlives_its_owner(tmp_path: Path) -> None:
    """Closed by the last who uses it, once."""
    descriptor = SharedDescriptor(os.open(tmp_path, os.O_RDONLY))
    with descriptor.used() as number:
        with descriptor.used():
            descriptor.close()
        os.fstat(number)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)
    descriptor.close()


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENOSPC, NoSpaceError),
        (errno.EDQUOT, NoSpaceError),
        (errno.EFBIG, NoSpaceError),
        (errno.EACCES, StorageError),
        (errno.EROFS, StorageError),
        (errno.EIO, StorageError),
    ],
)
def test_the_disks_refusals_are_told_in_one_line(number: int, expected: type[Exception]) -> None:
    """What was tried, and the reason."""
    error = storage_error(OSError(number, os.strerror(number)), "cannot write a/b")
    assert type(error) is expected
    assert str(error) == f"cannot write a/b: {os.strerror(number).lower()}"
