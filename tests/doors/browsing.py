"""A locator and a gateway over what is in memory, and a browser that looks at them."""

import asyncio
import socket
import threading
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import uvicorn
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from minga_core.names import Name
from minga_core.records import FileRow, HoldingState
from minga_locator.app import make_app
from services.locator.tests import support
from services.locator.tests.support import GIB, join, row
from services.peer.tests.gateway.support import Served, located
from tests.support.memory_directory import MemoryDirectory

MIB = 1 << 20
HOSTILE = (
    "<img src=x onerror=pwned=1>",
    "<script>pwned=1<\\script>",
    "javascript:pwned=1",
    "'; $(touch pwned) `touch pwned` \\ \" ${pwned}",
    "-rf --eval=pwned",
    "\u202egnp.exe",
    "%2e%2e%2f#?&=+ %00",
    "{{constructor.constructor('pwned=1')()}}",
    "x" * 250,
)
"""Names that are markup, scripts, shell, options, addresses or templates elsewhere."""
SHARED = "debian-13.2.0-amd64-netinst.iso"


@contextmanager
def serving(app: ASGIApp) -> Iterator[str]:
    """The app at a URL, in a thread."""
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, ws="none", log_config=None, lifespan="on", interface="asgi3"))
    thread = threading.Thread(target=asyncio.run, args=(server.serve([listening]),))
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
        listening.close()


def filled_directory() -> MemoryDirectory:
    """Eight peers of three racks, folders, a file with two versions, one on its way, and hostile names."""
    directory = MemoryDirectory()
    with patch.object(support, "LEASE", timedelta(hours=1)):
        _in_thread(_fill(directory))
    return directory


async def _fill(directory: MemoryDirectory) -> None:
    now = time.time_ns()

    def published(name: str, size_bytes: int, days: float, **more: Any) -> FileRow:
        return row(name, size_bytes=size_bytes, published_ns=now - int(days * 86400e9), **more)

    rows = [
        *(published(f"models/llama-3-8b/model-{part}-of-4.safetensors", 4_976_698_672, 3) for part in range(1, 5)),
        published("models/llama-3-8b/config.json", 826, 3),
        published("datasets/imagenet/train-0001.tar", GIB, 0.1),
        published("datasets/taxi/2024-01.parquet", 49_961_641, 40),
        published("backups/db-2026-11-28.dump", 17 * GIB, 1),
        published("release-notes.pdf", 312_441, 2),
        published("README.txt", 1_342, 0.002),
    ]
    for number in range(8):
        own = [each for index, each in enumerate(rows) if (index + number) % 3]
        if number == 0:
            own = [*rows, *(published(f"odd/{name}", 5, 9) for name in HOSTILE)]
            own.append(published("README.txt", 999, 9, seed="older"))
        state = HoldingState.PARTIAL if number >= 6 else HoldingState.COMPLETE
        own.append(published(SHARED, 824_180_736, 12, state=state))
        zone, free = ("rack-a", "rack-b", "rack-c")[number % 3], (8 + 23 * number) * GIB
        await join(directory, f"node-{number + 1:02}", *own, zone=zone, free_bytes=free)


class Gateway:
    """A peer's gateway over contents in memory. grants: those that it was shown."""

    def __init__(self, locator: str) -> None:
        """locator: whose pages it answers."""
        self._folder = TemporaryDirectory()
        self.served = Served({}, uploads=Path(self._folder.name), locator=locator)
        self.grants: set[str | None] = set()

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] != "OPTIONS" and scope["path"] != "/health":
            self.grants.add(Headers(scope=scope).get("authorization"))
        await self.served.app(scope, receive, send)

    @property
    def published(self) -> dict[Name, bytes]:
        """What was uploaded."""
        return self.served.uploader.published

    def kept(self) -> list[str]:
        """Files of unfinished uploads."""
        return sorted(path.name for path in Path(self._folder.name).iterdir())

    def share(self, name: str, data: bytes) -> None:
        """Have a file."""
        file = self.served.catalogue.files[Name(name)] = located(name, data)
        self.served.streams.contents[file.content_id] = data

    def close(self) -> None:
        self.served.pool.close()
        self._folder.cleanup()


@contextmanager
def gateway_for(locator: str) -> Iterator[tuple[str, Gateway]]:
    """The URL of a gateway for pages of that locator, and what it has."""
    gateway = Gateway(locator)
    try:
        with serving(gateway.app) as url:
            yield url, gateway
    finally:
        gateway.close()


@contextmanager
def page_and_gateway(directory: MemoryDirectory, **secured: Any) -> Iterator[tuple[str, str, Gateway]]:
    """The locator's URL, that of the gateway, and what it has. secured: for make_app."""
    with serving(make_app(directory, **secured)) as locator, gateway_for(locator) as (url, gateway):
        yield locator, url, gateway


def many_files(count: int) -> MemoryDirectory:
    """A peer that shares so many, in one folder."""
    directory = MemoryDirectory()
    rows = [row(f"file-{number:04}") for number in range(count)]
    with patch.object(support, "LEASE", timedelta(hours=1)):
        _in_thread(join(directory, "a", *rows))
    return directory


def _in_thread(work: Coroutine[Any, Any, object]) -> None:
    # The tests' own thread has the browser's loop.
    thread = threading.Thread(target=asyncio.run, args=(work,))
    thread.start()
    thread.join()
