"""What the demo's steps use: the network, the `minga` command, and questions to the directory."""

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


def check(holds: bool, what: str) -> None:
    """Raises StepFailedError unless it holds."""
    if not holds:
        raise StepFailedError(f"does not hold: {what}")


class Scenario:
    """One run of the demo."""

    def __init__(self, net: LocalNetwork, console: Console, root: Path) -> None:
        self.net = net
        self._console = console
        self.scratch = root / "scratch"
        self.scratch.mkdir()
        self.killed_at = 0.0

    def say(self, text: str) -> None:
        """Prints what happens."""
        self._console.print(f"  {text}", style="cyan")

    async def minga(self, peer: LocalPeer | None, *arguments: str, quiet: bool = False) -> None:
        """Runs the `minga` command on a peer's machine, or on one without a peer."""
        control = peer.control if peer else self.scratch / "no-daemon.sock"
        if not quiet:
            self._console.print(f"  $ minga {' '.join(arguments)}", style="bold")
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "minga_cli", "--locator", self.net.locator_url, "--control", str(control)),
            *arguments,
            stdout=asyncio.subprocess.DEVNULL if quiet else None,
        )
        try:
            code = await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        check(code == 0, f"minga {' '.join(arguments)} succeeds (exit code {code})")

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

    async def newest(self, name: str) -> Any:
        """The default version of a file, as the locator answers."""
        async with LocatorClient(self.net.locator_url) as locator:
            return (await locator.find_file(parse_name(name))).versions[0]

    async def peer_is_gone(self, peer_id: str) -> bool:
        """Whether neither the list of peers nor a file's holders name the peer."""
        async with LocatorClient(self.net.locator_url) as locator:
            listed: list[Any] = [peer async for peer in locator.iter_peers()]
        return all(peer.peer_id != peer_id for peer in listed)

    async def some_bytes_held(self, peer: LocalPeer, count: int) -> bool:
        """Whether a download on that peer has so many bytes."""
        async with ControlClient(peer.control) as control:
            status = await control.status()
        return any(download.held_bytes >= count for download in status.downloads) or status.received_bytes >= count
