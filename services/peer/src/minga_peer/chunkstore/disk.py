"""Disk work off the event loop, and its errors as ours."""

import asyncio
import errno
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from minga_core.errors import NoSpaceError, StorageError

T = TypeVar("T")

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class DiskPool:
    """A bounded pool of threads for disk work and hashing."""

    def __init__(self, threads: int, name: str = "disk") -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=f"minga-{name}")

    async def run(self, work: Callable[..., T], *arguments: Any) -> T:
        """`work`'s result. A cancelled caller does not stop work that has begun."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work, *arguments)

    def close(self) -> None:
        """Waits for work that has begun; what has not is dropped."""
        self._pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def told_as(what: str) -> Iterator[None]:
    """Turns OSErrors inside the block into NoSpaceError or StorageError, in one line that says what was tried."""
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
