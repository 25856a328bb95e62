"""The cache of a hub's clients beside a peer's folder, on file systems that can share blocks between files."""

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from minga_cli.localprocess import module_command
from tests.origins.networks import gateways
from tests.origins.programs import run
from tests.support.hub import Repository, stub_hub

pytestmark = pytest.mark.e2e

MIB = 1024 * 1024
IMAGE_BYTES = 1024 * MIB
"""Nothing of it takes place before it is written."""


@asynccontextmanager
async def mounted(folder: Path, kind: str) -> AsyncIterator[Path]:
    """A new file system of that kind; skips the test where there can be none."""
    if os.geteuid() != 0 or shutil.which(f"mkfs.{kind}") is None:
        pytest.skip(f"mkfs.{kind} is not here, or may not be used")
    image, place = folder / "image", folder / "mounted"
    with image.open("wb") as file:
        file.truncate(IMAGE_BYTES)
    place.mkdir()
    await run(f"mkfs.{kind}", "-q", str(image))
    try:
        await run("mount", "-o", "loop", str(image), str(place))
    except AssertionError as error:
        pytest.skip(f"cannot mount {kind} here: {error}")
    try:
        yield place
    finally:
        await run("umount", str(place))
        image.unlink()


async def used_bytes(folder: Path) -> int:
    """Of its file system."""
    await run("sync", "-f", str(folder))
    found = os.statvfs(folder)
    return (found.f_blocks - found.f_bfree) * found.f_frsize


@pytest.mark.parametrize("kind", ["btrfs", "xfs"])
async def test_a_filled_cache_takes_no_second_place_where_blocks_can_be_shared(tmp_path: Path, kind: str) -> None:
    """What the peer has and what the cache has are the same blocks."""
    weights = {f"model-{number}.safetensors": os.urandom(32 * MIB + 1) for number in range(2)}
    size_bytes = sum(map(len, weights.values()))
    async with stub_hub() as hub, mounted(tmp_path, kind) as place:
        hub.repositories["org/model"] = Repository({"config.json": b"{}", **weights})
        flags = ("--hub", hub.url, "--fetch-allow", hub.cdn)
        async with gateways(place / "net", 1, flags) as (net, _):
            before = await used_bytes(place)
            fill = ("--control", str(net.peers[0].control), "hf", "fill", "org/model", "--cache", str(place / "cache"))
            await run(*module_command("minga_cli", *fill), environment={"HF_TOKEN": ""})
            cached = {path.read_bytes() for path in (place / "cache").glob("*/blobs/*")}
            assert cached == {b"{}", *weights.values()}
            assert len(list(net.peers[0].share_dir.glob("origins/sha256/*"))) == len(weights)
            assert size_bytes <= await used_bytes(place) - before <= 1.4 * size_bytes
