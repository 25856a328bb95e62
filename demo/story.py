"""What the demo's steps have in hand: the network, the `minga` command, and ways to look."""

import asyncio
import os
import sys
import time
import unicodedata
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from minga.control import ControlClient
from minga_cli.localnet import LocalNetwork, LocalPeer
from minga_core.errors import MingaError
from minga_core.ids import ContentId
from minga_core.names import parse_name
from minga_engine.wire.locator import LocatorClient


class StepFailedError(Exception):
    """A step did not show what it should."""


async def until(holds: Callable[[], Awaitable[bool]], limit_seconds: float, what: str) -> None:
    """Returns once `holds`; raises StepFailedError after the limit."""
    deadline = time.monotonic() + limit_seconds
    while not await holds():
        if time.monotonic() > deadline:
            raise StepFailedError(f"not within {limit_seconds:.0f} s: {what}")
        await asyncio.sleep(0.02)


def files_below(root: Path) -> set[str]:
    """Names of the regular files of a shared folder, as the catalogue spells them."""
    found: set[str] = set()
    for directory, folders, files in os.walk(root):
        folders[:] = [folder for folder in folders if folder != ".minga"]
        paths = [Path(directory) / file for file in files]
        found |= {
            unicodedata.normalize("NFC", path.relative_to(root).as_posix()) for path in paths if not path.is_symlink()
        }
    return found


def fill_with_noise(path: Path, size_bytes: int) -> None:
    """Writes a file that no compression or sparseness could make smaller. Blocking."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for start in range(0, size_bytes, 1 << 22):
            file.write(os.urandom(min(1 << 22, size_bytes - start)))


async def run_minga(arguments: list[str], *, quiet: bool) -> str:
    """Runs the `minga` command; what it printed, which also goes to the terminal unless quiet."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "minga_cli",
        *arguments,
        stdout=asyncio.subprocess.PIPE if quiet else None,
    )
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise StepFailedError(f"minga {' '.join(arguments)} ended with exit code {process.returncode}")
    return (output or b"").decode()


class Story:
    """One run of the demo."""

    def __init__(self, net: LocalNetwork, console: Console, root: Path) -> None:
        self.net = net
        self._console = console
        self.scratch = root / "scratch"
        self.scratch.mkdir()
        self.killed_at = 0.0

    def say(self, text: str) -> None:
        """Tells what happens."""
        self._console.print(f"  {text}", style="cyan")

    @staticmethod
    def check(holds: bool, what: str) -> None:
        """Raises StepFailedError unless it holds."""
        if not holds:
            raise StepFailedError(f"does not hold: {what}")

    async def minga(self, peer: LocalPeer | None, *arguments: str, quiet: bool = False) -> str:
        """The `minga` command on a peer's machine, or on one without a peer."""
        options = ["--locator", self.net.locator_url]
        options += ["--control", str(peer.control if peer else self.scratch / "no-daemon.sock")]
        if not quiet:
            self._console.print(f"  $ minga {' '.join(arguments)}", style="bold")
        return await run_minga([*options, *arguments], quiet=quiet)

    async def catalogue_names(self) -> set[str]:
        """Every name of the catalogue; empty while the locator is away."""
        try:
            async with LocatorClient(self.net.locator_url) as locator:
                return {file.name async for file in locator.iter_files()}
        except MingaError:
            return set()

    async def catalogue_has(self, names: set[str]) -> bool:
        """Whether all of these are listed."""
        return names <= await self.catalogue_names()

    async def holders_of(self, name: str) -> set[str]:
        """Peers that the locator names for the newest version."""
        async with LocatorClient(self.net.locator_url) as locator:
            answer = await locator.find_file(parse_name(name))
        return {source.peer_id for source in answer.versions[0].sources}

    async def newest_content(self, name: str) -> ContentId:
        """The default version's content."""
        async with LocatorClient(self.net.locator_url) as locator:
            return (await locator.find_file(parse_name(name))).versions[0].content_id

    async def newest_content_is_not(self, name: str, content_id: ContentId) -> bool:
        """Whether another content is the default now."""
        return await self.newest_content(name) != content_id

    async def peer_is_gone(self, peer_id: str) -> bool:
        """Whether neither the list of peers nor a file's holders name the peer."""
        async with LocatorClient(self.net.locator_url) as locator:
            listed: list[Any] = [peer async for peer in locator.iter_peers()]
        return all(peer.peer_id != peer_id for peer in listed)

    async def some_bytes_held(self, peer: LocalPeer, count: int) -> bool:
        """Whether a download on that peer has got so far."""
        async with ControlClient(peer.control) as control:
            status = await control.status()
        return any(download.held_bytes >= count for download in status.downloads) or status.received_bytes >= count
