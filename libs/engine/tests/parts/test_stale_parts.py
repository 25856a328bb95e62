"""Parts that a client without a daemon has left, and nobody resumed."""

import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from minga_core.names import Name
from minga_engine.parts.disk import DiskPool
from minga_engine.parts.part import Part
from minga_engine.parts.part_files import PartTarget
from minga_engine.parts.standalone_part import open_part

from .support import fill, manifest_of, noise

DATA = noise(3_000_000)


@pytest.fixture
async def pool() -> AsyncIterator[DiskPool]:
    made = DiskPool(2)
    yield made
    made.close()


async def part_of(folder: Path, name: str, pool: DiskPool) -> Part:
    manifest = manifest_of(DATA)
    return await open_part(
        folder / name, PartTarget(Name(name), manifest, manifest.content_id, 5), pool, overwrite=False
    )


async def left(folder: Path, name: str, pool: DiskPool) -> Part:
    """A part that was broken off."""
    part = await part_of(folder, name, pool)
    await fill(part, DATA, [0])
    await part.close()
    part.shut()
    return part


def age(part: Part, days: float) -> None:
    then = time.time() - days * 24 * 3600
    os.utime(part.files.data_path.with_suffix(".held"), (then, then))


def stems(folder: Path) -> set[str]:
    parts = folder / ".minga-parts"
    return {path.name.partition(".")[0] for path in parts.iterdir()} if parts.exists() else set()


async def test_parts_that_nobody_resumed_go_with_the_next_download(tmp_path: Path, pool: DiskPool) -> None:
    """Fault of the field: they stayed for ever. A younger one stays, and one that a process has open."""
    old, young = await left(tmp_path, "old", pool), await left(tmp_path, "young", pool)
    open_still = await part_of(tmp_path, "open", pool)
    await fill(open_still, DATA, [0])
    await open_still._save()
    for part, days in ((old, 8), (young, 6), (open_still, 8)):
        age(part, days)
    other = await part_of(tmp_path, "other", pool)
    await fill(other, DATA)
    await other.commit()
    assert stems(tmp_path) == {young.target.stem(), open_still.target.stem()}
    await open_still.discard()


async def test_what_a_finished_part_has_left_goes_at_once(tmp_path: Path, pool: DiskPool) -> None:
    """The process died after the file had got its name."""
    await left(tmp_path, "a", pool)
    for path in (tmp_path / ".minga-parts").glob("*.data"):
        path.rename(tmp_path / "a")
    other = await part_of(tmp_path, "b", pool)
    await fill(other, DATA)
    await other.commit()
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]
