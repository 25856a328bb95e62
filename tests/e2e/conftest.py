"""Whole networks of real processes, as `minga up` starts them, with short leases."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from minga.control import ControlClient
from minga_cli.localnet import LocalNetwork, LocalNetworkConfig, LocalPeer
from minga_core.errors import MingaError, UnavailableError
from minga_core.ids import ContentId
from minga_core.names import Name, parse_name
from minga_engine.progress import Progress
from minga_engine.wire.locator import LocatorClient
from minga_engine.wire.locator_answers import FileVersion

LEASE = timedelta(seconds=3)
LIMIT_SECONDS = 60.0
"""Other processes may have a twentieth of a processor."""


async def eventually(holds: Callable[[], Awaitable[bool]], what: str, limit_seconds: float = LIMIT_SECONDS) -> float:
    """Returns once `holds`, with the seconds it took; fails the test after the limit. What cannot be asked, since a
    part is busy or on its way back, does not hold yet."""
    started = time.monotonic()
    away = ""

    async def does() -> bool:
        nonlocal away
        try:
            return await holds()
        except UnavailableError as error:
            away = f" ({error})"
            return False

    try:
        async with asyncio.timeout(limit_seconds):
            while not await does():  # noqa: ASYNC110 - the condition belongs to other processes
                await asyncio.sleep(0.02)
    except TimeoutError:
        pytest.fail(f"not within {limit_seconds} s: {what}{away}")
    return time.monotonic() - started


class Story:
    """A network and ways to look at it."""

    def __init__(self, net: LocalNetwork) -> None:
        self.net = net

    @property
    def peers(self) -> list[LocalPeer]:
        return list(self.net.peers)

    async def version(self, name: str) -> FileVersion | None:
        """The newest version of a name; None when nobody has it or the locator is away."""
        try:
            async with LocatorClient(self.net.locator_url) as locator:
                versions = (await locator.find_file(parse_name(name))).versions
        except MingaError:
            return None
        return versions[0] if versions else None

    async def holders(self, name: str) -> set[str]:
        version = await self.version(name)
        return set() if version is None else {str(source.peer_id) for source in version.sources}

    async def names(self) -> set[Name]:
        try:
            async with LocatorClient(self.net.locator_url) as locator:
                return {file.name async for file in locator.iter_files()}
        except MingaError:
            return set()

    async def live_peers(self) -> set[str]:
        try:
            async with LocatorClient(self.net.locator_url) as locator:
                return {str(peer.peer_id) async for peer in locator.iter_peers()}
        except MingaError:
            return set()

    async def share(self, peer: LocalPeer, name: str, data: bytes) -> ContentId:
        """Drops a file and waits until everyone can find it."""
        path = peer.share_dir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

        version: FileVersion | None = None

        async def found() -> bool:
            nonlocal version
            version = await self.version(name)
            holders = [] if version is None else [source.peer_id for source in version.sources]
            return version is not None and version.size_bytes == len(data) and peer.peer_id in holders

        await eventually(found, f"{name} can be found")
        assert version is not None
        return version.content_id

    async def download(self, peer: LocalPeer, name: str, **options: object) -> Progress:
        """Downloads through a peer's daemon; the last progress."""
        last: Progress | None = None
        async with ControlClient(peer.control) as control:
            async for step in control.download(parse_name(name), **options):  # type: ignore[arg-type]
                last = step
        assert last is not None
        return last

    async def held_bytes(self, peer: LocalPeer) -> int:
        """Verified bytes of the downloads that a peer runs."""
        try:
            async with ControlClient(peer.control) as control:
                return sum(item.held_bytes for item in (await control.status()).downloads)
        except MingaError:
            return 0


@asynccontextmanager
async def running(tmp_path: Path, peer_count: int, **options: object) -> AsyncIterator[Story]:
    """A network that is ready."""
    config = LocalNetworkConfig(peer_count=peer_count, directory=tmp_path / "net", lease_ttl=LEASE, **options)  # type: ignore[arg-type]
    async with LocalNetwork(config) as net:
        await net.wait_ready()
        yield Story(net)


def noise(size_bytes: int) -> bytes:
    """Bytes that nothing could make smaller."""
    return os.urandom(size_bytes)
