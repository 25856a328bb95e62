"""Parts whose digests come while they are filled."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from minga_core.errors import (
    ChunkCorruptError,
    ContentChangedError,
    InvalidArgumentError,
    InvalidManifestError,
    StorageError,
)
from minga_core.ids import DIGEST_BYTES, ContentId
from minga_core.names import Name
from minga_engine.parts import part as parts
from minga_engine.parts import provisional
from minga_engine.parts.disk import DiskPool
from minga_engine.parts.part_files import PartTarget
from minga_engine.parts.provisional import ProvisionalPart, no_digests
from minga_engine.parts.standalone_part import _PathOwner

from .support import chunk_of, eventually, fill, manifest_of, noise

MIB = 1024 * 1024
DATA = noise(MIB + 7)
MANIFEST = manifest_of(DATA)
COUNT = MANIFEST.geometry.chunk_count


@pytest.fixture
async def part(tmp_path: Path) -> AsyncIterator[ProvisionalPart]:
    pool = DiskPool(2)
    owner = _PathOwner(tmp_path / "file.bin", tmp_path / "parts", pool)
    target = PartTarget(Name("file.bin"), no_digests(len(DATA)), ContentId(bytes(32)), 5)
    made = ProvisionalPart(tmp_path / "parts", target, pool, owner)
    await made.begin(overwrite=True)
    yield made
    await made.close()
    pool.close()


def add(part: ProvisionalPart, first: int, stop: int) -> None:
    part.add_digests(first, MANIFEST.digests[first * DIGEST_BYTES : stop * DIGEST_BYTES])


async def test_digests_come_in_any_order_and_chunks_wait_for_theirs(part: ProvisionalPart, tmp_path: Path) -> None:
    """The manifest is whole once all of them have come."""
    filling = asyncio.create_task(fill(part, DATA))
    add(part, 3, COUNT)
    add(part, 0, 1)
    with pytest.raises(InvalidManifestError):
        part.final_manifest()
    await eventually(lambda: part.held_count == 1, "the first chunk is written")
    add(part, 0, 4)
    await filling
    assert part.final_manifest() == MANIFEST
    await part.commit()
    assert (tmp_path / "file.bin").read_bytes() == DATA


async def test_digests_of_another_file_or_of_none_are_refused(
    part: ProvisionalPart, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of them is kept."""
    add(part, 1, 2)
    for first, digests in ((-1, bytes(32)), (COUNT, bytes(32)), (0, bytes(32 * (COUNT + 1))), (0, bytes(31))):
        with pytest.raises(InvalidArgumentError):
            part.add_digests(first, digests)
    with pytest.raises(ContentChangedError):
        part.add_digests(0, bytes(3 * DIGEST_BYTES))
    assert list(part.known) == [1]
    with pytest.raises(ChunkCorruptError):
        await part.write_chunk(1, bytes(MANIFEST.geometry.length(1)))
    monkeypatch.setattr(provisional, "DIGEST_SECONDS", 0.01)
    with pytest.raises(ChunkCorruptError, match="no digest"):
        await part.write_chunk(0, chunk_of(DATA, 0))


async def test_data_that_were_lost_on_their_way_to_the_disk_are_no_file(
    part: ProvisionalPart, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel says so once, to whoever syncs first: that is before the end, while the rest still comes."""

    def lost(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(parts, "SAVE_SECONDS", 0.01)
    with monkeypatch.context() as failing:
        failing.setattr(os, "fdatasync", lost)
        add(part, 0, COUNT)
        await part.write_chunk(0, chunk_of(DATA, 0))
        await eventually(lambda: part._unsynced is not None, "it was synced")
    await fill(part, DATA)
    with pytest.raises(StorageError):
        await part.commit()
    assert not (tmp_path / "file.bin").exists()
