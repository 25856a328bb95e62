"""Bodies of uploads as files of the state folder, until they are placed."""

import asyncio
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from starlette.types import Receive

from minga_core.errors import InvalidArgumentError, NoSpaceError, PeerUnavailableError
from minga_core.units import format_bytes
from minga_engine.parts.disk import DiskPool, storage_errors
from minga_peer.gateway._metrics import GatewayMetrics
from minga_runtime.quotas import DailyQuota

IDLE_SECONDS = 60.0
"""An uploader that sends nothing for so long is given up."""
_WHOLE = "put-"
"""Begins the names of bodies that are of no use after a crash: their clients send them again from the start."""


@dataclass(frozen=True, slots=True)
class Spool:
    """Writes bodies. free_bytes: how much fits into `folder`. quota: of the bytes of a day."""

    folder: Path
    free_bytes: Callable[[], int]
    pool: DiskPool
    metrics: GatewayMetrics
    quota: DailyQuota

    async def sweep(self) -> None:
        """Remove what a crash has left. Before the first `create`."""
        await self.pool.run(_sweep, self.folder)

    async def create(self) -> Path:
        """A new file, empty, which the caller deletes; a crash does otherwise. Raises NoSpaceError, StorageError."""
        return await self.pool.run(_create, self.folder)

    async def delete(self, path: Path) -> None:
        """Remove a file, as far as that is possible."""
        await self.pool.run(_delete, path)

    def check(self, who: str | None, size_bytes: int) -> None:
        """Whether so many bytes may come. who: as the quota counts the uploader; None for one that it does not count.

        Raises NoSpaceError, LimitExceededError.
        """
        free = self.free_bytes()
        if size_bytes > free:
            raise NoSpaceError(f"{format_bytes(size_bytes)} do not fit here: {format_bytes(free)} are free")
        if who is not None:
            self.quota.check(who, size_bytes)

    async def append(self, path: Path, receive: Receive, who: str | None, *, most: int | None = None) -> int:
        """Write the body of a request behind what a file has; its bytes. What came before an error stays.

        most: how many bytes it may have. Raises InvalidArgumentError for more, PeerUnavailableError when the uploader
        pauses or goes away, NoSpaceError, StorageError, LimitExceededError.
        """
        received, more = 0, True
        descriptor = await self.pool.acquire(_open, path, undo=os.close)
        try:
            while more:
                data, more = await _next_piece(receive)
                if most is not None:
                    check_fits(received + len(data), most)
                self.check(None, len(data))
                if who is not None:
                    self.quota.use(who, len(data))
                with storage_errors("cannot keep the upload"):
                    await self.pool.run(_write, descriptor, data)
                received += len(data)
                self.metrics.received(len(data))
            return received
        finally:
            os.close(descriptor)


def check_fits(body_bytes: int, missing: int) -> None:
    """Raises InvalidArgumentError for a body that has more bytes than are missing."""
    if body_bytes > missing:
        raise InvalidArgumentError(f"the body has more than the {missing:,} bytes that are missing")


async def _next_piece(receive: Receive) -> tuple[bytes, bool]:
    try:
        async with asyncio.timeout(IDLE_SECONDS):
            message = await receive()
    except TimeoutError:
        raise PeerUnavailableError(f"the upload paused for {IDLE_SECONDS:.0f} s") from None
    if message["type"] == "http.disconnect":
        raise PeerUnavailableError("the connection ended before the body")
    return message.get("body", b""), message.get("more_body", False)


def _sweep(folder: Path) -> None:
    for path in folder.glob(f"{_WHOLE}*"):
        _delete(path)


def _create(folder: Path) -> Path:
    with storage_errors("cannot keep uploads"):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor, name = tempfile.mkstemp(prefix=_WHOLE, dir=folder)
        os.close(descriptor)
    return Path(name)


def _open(path: Path) -> int:
    with storage_errors("cannot keep the upload"):
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _delete(path: Path) -> None:
    with suppress(OSError):
        path.unlink(missing_ok=True)
