"""A copy is whole or not there."""

import asyncio
import errno
import os
from pathlib import Path

import pytest

from minga import copying
from minga.copying import copy_into_place
from minga_core.errors import NameTakenError, NoSpaceError, StorageError
from minga_engine.parts.hashing import hash_path

# ruff: noqa: ASYNC240 - small files, and nothing else runs on the loop


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A file of a few steps."""
    path = tmp_path / "source"
    path.write_bytes(os.urandom(3_000_000))
    return path


async def test_the_copy_has_the_same_bytes_and_mode(source: Path, tmp_path: Path) -> None:
    """And is made once: again there is nothing to do."""
    source.chmod(0o640)
    content_id = hash_path(source).content_id
    target = tmp_path / "target"
    assert await copy_into_place(source, target, content_id, overwrite=False)
    assert target.read_bytes() == source.read_bytes()
    assert target.stat().st_mode & 0o777 == 0o640
    assert not await copy_into_place(source, target, content_id, overwrite=False)
    assert not await copy_into_place(source, source, content_id, overwrite=True)


async def test_without_the_kernels_help_it_is_the_same(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Across file systems, and on old kernels, bytes go through the process."""

    def refuse(*_: int) -> int:
        raise OSError(errno.EXDEV, "cross-device")

    monkeypatch.setattr(os, "copy_file_range", refuse, raising=False)
    assert await copy_into_place(source, tmp_path / "t", None, overwrite=False)
    assert (tmp_path / "t").read_bytes() == source.read_bytes()


async def test_another_content_stays_unless_overwriting(source: Path, tmp_path: Path) -> None:
    """Replaced in one step when asked."""
    target = tmp_path / "t"
    target.write_text("mine")
    content_id = hash_path(source).content_id
    with pytest.raises(NameTakenError):
        await copy_into_place(source, target, content_id, overwrite=False)
    assert target.read_text() == "mine"
    assert await copy_into_place(source, target, content_id, overwrite=True)
    assert target.read_bytes() == source.read_bytes()


@pytest.mark.parametrize(("number", "kind"), [(errno.ENOSPC, NoSpaceError), (errno.EIO, StorageError)])
async def test_a_disk_that_says_no_leaves_nothing_behind(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[StorageError]
) -> None:
    """No target, no temporary file."""

    def refuse(*_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(copying, "_copy_bytes", refuse)
    with pytest.raises(kind, match="cannot write"):
        await copy_into_place(source, tmp_path / "t", None, overwrite=False)
    assert os.listdir(tmp_path) == ["source"]


async def test_a_cancelled_copy_leaves_nothing_behind(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C in the middle: the thread has cleaned up before the cancellation goes on."""
    copied = asyncio.Event()
    loop = asyncio.get_running_loop()

    def crawl(source: int, target: int, count: int) -> int:
        loop.call_soon_threadsafe(copied.set)
        return len(os.read(source, 1)) and os.write(target, b"x")

    monkeypatch.setattr(os, "copy_file_range", crawl, raising=False)
    work = asyncio.create_task(copy_into_place(source, tmp_path / "t", None, overwrite=False))
    await copied.wait()
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert os.listdir(tmp_path) == ["source"]
