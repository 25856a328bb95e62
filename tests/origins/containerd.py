"""Debian's containerd, without systemd: its own root, state and socket, and `ctr` in front of it."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.e2e.conftest import eventually
from tests.origins.programs import run

_CONFIG_FILE = """
version = 2
root = "{folder}/root"
state = "{folder}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.snapshotter.v1.devmapper"]
[grpc]
  address = "{folder}/containerd.sock"
[ttrpc]
  address = "{folder}/ttrpc.sock"
"""


class Containerd:
    """A running one. certs: the folder of its hosts.toml files."""

    def __init__(self, folder: Path, certs: Path) -> None:
        self._folder = folder
        self.certs = certs

    async def fetch(self, reference: str, *options: str, code: int = 0) -> str:
        """Pull an image and unpack nothing."""
        return await self._ctr("content", "fetch", "--hosts-dir", str(self.certs), *options, reference, code=code)

    async def pull(self, reference: str, *options: str) -> str:
        """Pull an image, as a node does before it runs it."""
        flags = ("--hosts-dir", str(self.certs), "--snapshotter", "native")
        return await self._ctr("images", "pull", *flags, *options, reference)

    async def target(self, reference: str) -> str:
        """The digest that a name of an image stands for here."""
        listed = await self._ctr("images", "ls", f"name=={reference}")
        return listed.splitlines()[1].split()[2]

    def blob(self, digest: str) -> bytes:
        """What is kept of a blob."""
        return self.blob_file(digest).read_bytes()

    def blob_file(self, digest: str) -> Path:
        """Where a blob is kept."""
        return self._folder / "root/io.containerd.content.v1.content/blobs/sha256" / digest.removeprefix("sha256:")

    async def _ctr(self, *arguments: str, code: int = 0) -> str:
        return await run("ctr", "--address", str(self._folder / "containerd.sock"), *arguments, code=code)


@asynccontextmanager
async def containerd(folder: Path) -> AsyncIterator[Containerd]:
    """One that runs; skips the test where it cannot."""
    if shutil.which("containerd") is None or shutil.which("ctr") is None:
        pytest.skip("no containerd: make origins-test installs it")
    if os.geteuid() != 0:
        pytest.skip("containerd needs root")
    _prepare(folder)
    with (folder / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            "containerd", "--config", str(folder / "config.toml"), stdout=log, stderr=log
        )
    try:
        await eventually(lambda: _listens(folder), "containerd listens")
        yield Containerd(folder, folder / "certs.d")
    finally:
        process.kill()
        await process.wait()


def _prepare(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text(_CONFIG_FILE.format(folder=folder))


async def _listens(folder: Path) -> bool:
    return (folder / "containerd.sock").is_socket()
