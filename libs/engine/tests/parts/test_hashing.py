"""From files to manifests."""

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from minga_core.errors import ContentChangedError, StorageError
from minga_engine.parts import hashing as hasher
from minga_engine.parts.hashing import hash_descriptor, hash_file, hash_path

from .support import manifest_of, noise

KIB, MIB = 1024, 1024 * 1024


@pytest.mark.parametrize("size", [0, 1, 256 * KIB - 1, 256 * KIB, 256 * KIB + 1, 3 * MIB + 5])
async def test_a_manifest_is_that_of_the_bytes(tmp_path: Path, size: int) -> None:
    """Whatever the size, and whether hashed by one thread or by several."""
    data = noise(size)
    (tmp_path / "file").write_bytes(data)
    assert hash_path(tmp_path / "file") == await hash_file(tmp_path / "file") == manifest_of(data)


async def test_a_large_file_is_hashed_in_ranges_to_the_same_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ranges that end before their turn are put together in order."""
    monkeypatch.setattr(hasher, "RANGE_BYTES", 512 * KIB)
    data = noise(7 * MIB + 3)
    (tmp_path / "file").write_bytes(data)
    assert await hash_file(tmp_path / "file") == manifest_of(data)


def changing(path: Path, change: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Changes the file right after its first piece was read."""
    real = os.preadv

    def read(descriptor: int, buffers: list[memoryview], offset: int) -> int:
        count = real(descriptor, buffers, offset)
        if offset == 0:
            change(path)
        return count

    monkeypatch.setattr(os, "preadv", read)


def _grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def _shrink(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 10)


def _write_over(path: Path) -> None:
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))


@pytest.mark.parametrize("change", [_grow, _shrink, _write_over])
async def test_a_file_that_changes_while_hashed_has_no_manifest(
    tmp_path: Path, change: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half an old and half a new file is no content."""
    path = tmp_path / "file"
    path.write_bytes(noise(3 * MIB))
    changing(path, change, monkeypatch)
    with path.open("rb") as file, pytest.raises(ContentChangedError):
        hash_descriptor(file.fileno(), "file")
    with pytest.raises(ContentChangedError):
        await hash_file(path)


@pytest.mark.parametrize("kind", ["missing", "folder", "pipe"])
async def test_what_is_no_file_is_refused_in_one_line(tmp_path: Path, kind: str) -> None:
    """A pipe without a writer does not hang, either."""
    path = tmp_path / "it"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    with pytest.raises(StorageError, match=f"cannot read {path}"):
        await hash_file(path)


async def test_a_cancelled_hash_ends_within_a_range_and_closes_the_file(tmp_path: Path) -> None:
    """A file of a terabyte must not keep a daemon from stopping. 1. Begin on 1 TiB. 2. Cancel. 3. It is over soon."""
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    before = len(os.listdir("/proc/self/fd"))
    task = asyncio.create_task(hash_file(tmp_path / "sparse"))
    await asyncio.sleep(0)
    began = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert time.monotonic() - began < 10
    assert len(os.listdir("/proc/self/fd")) == before
