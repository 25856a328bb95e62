"""What is announced of a file besides its bytes, and what a stored file gets."""

import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from minga_core.attributes import FileAttributes
from minga_core.errors import StorageError
from minga_core.names import Name
from minga_core.records import PUBLISH, FileRow
from minga_engine.parts.files import Fingerprint
from minga_engine.parts.placing import SmallContent, SmallFile

from .conftest import Opener, Shared, eventually, fill, manifest_of, noise

DATA = noise(600_000)
ATTRIBUTES = FileAttributes(1_234_567_890_123_456_789, executable=True)


@pytest.fixture
async def shared(opened: Opener) -> Shared:
    return await opened()


@pytest.fixture(autouse=True)
def _umask() -> Iterator[None]:
    before = os.umask(0o027)
    yield
    os.umask(before)


async def shown(shared: Shared, name: str, *, executable: bool) -> FileRow:
    """The row once it says that."""

    def row() -> FileRow | None:
        return shared.store.find(Name(name))

    await eventually(lambda: (found := row()) is not None and found.executable is executable, f"{name}: {executable}")
    found = row()
    assert found is not None
    return found


async def test_a_file_that_becomes_executable_is_announced_and_not_published_again(opened: Opener) -> None:
    """1. A file is shared. 2. chmod +x. 3. Its row says so, of the same publication. 4. A restart keeps that, hashing
    nothing. 5. chmod -x while no daemon runs is found."""
    async with opened.running() as first:
        path = first.drop("tool", DATA)
        before = await first.published("tool", DATA, 77)
        assert before.executable is False
        path.chmod(0o755)
        row = await shown(first, "tool", executable=True)
        assert row == before._replace(executable=True)
    async with opened.running() as second:
        assert await shown(second, "tool", executable=True) == row
        assert second.metrics.misses == 0
    path.chmod(0o644)
    third = await opened()
    assert await shown(third, "tool", executable=False) == before


async def test_an_index_of_the_version_before_costs_the_executable_files_alone(opened: Opener) -> None:
    """It does not say which are: those are hashed again, with the time of publication that they had."""
    async with opened.running() as first:
        first.drop("plain", b"x")
        first.drop("tool", DATA).chmod(0o755)
        await first.shares("plain", b"x")
        await shown(first, "tool", executable=True)
        row = await first.published("tool", DATA, 77)
    with closing(sqlite3.connect(opened.root / ".minga/index.sqlite")) as database, database:
        for column in ("executable", "tag"):
            database.execute(f"ALTER TABLE files DROP COLUMN {column}")
        database.execute("PRAGMA user_version = 2")
    second = await opened()
    assert await shown(second, "tool", executable=True) == row
    await second.shares("plain", b"x")
    assert second.metrics.misses == 1


async def test_a_download_has_the_attributes_and_is_hashed_only_once(opened: Opener) -> None:
    """The index has the fingerprint of the finished file: neither the watch nor a restart hashes it."""
    async with opened.running() as first:
        part = await first.part("deep/tool", DATA, attributes=ATTRIBUTES)
        await fill(part, DATA)
        row = await part.commit()
        assert (row.modified_ns, row.executable) == ATTRIBUTES
        assert (await first.shares("deep/tool", DATA)) == row
        path = first.root / "deep/tool"
        assert (path.stat().st_mtime_ns, _mode(path), _mode(path.parent)) == (ATTRIBUTES.modified_ns, 0o750, 0o750)
        first.drop("later", b"x")
        await first.shares("later", b"x")
        assert first.metrics.misses == 1
    second = await opened()
    assert await second.shares("deep/tool", DATA) == row
    assert second.metrics.misses == 0


async def test_small_files_have_the_attributes(shared: Shared) -> None:
    """Those that are stored many at once."""
    content = SmallContent.of(b"small", manifest_of(b"small").content_id)
    (stored,) = await shared.store.small.store([SmallFile(Name("a/small"), content, 5, ATTRIBUTES)])
    assert stored is not None
    assert _attributes(Path(stored)) == ATTRIBUTES
    assert _mode(Path(stored)) == 0o750
    row = await shared.shares("a/small", b"small")
    assert (row.modified_ns, row.executable) == ATTRIBUTES


async def test_a_part_is_announced_with_the_attributes_after_a_restart_too(opened: Opener) -> None:
    """So that whoever asks for the file meanwhile gets it with them."""
    async with opened.running() as first:
        part = await first.part("tool", DATA, attributes=ATTRIBUTES)
        await fill(part, DATA, [0])
        await part.close()
        rows = first.store.table.rows()
        assert [(row.modified_ns, row.executable) for row in rows] == [ATTRIBUTES]
    second = await opened()
    assert second.store.table.rows() == rows


@pytest.mark.parametrize("kind", ["dangling link", "pipe"])
async def test_what_is_not_a_file_is_not_replaced(shared: Shared, kind: str) -> None:
    """Fault of the field: through a daemon a dangling link was. Neither when it appears during the download."""
    in_the_way = shared.root / "there"
    _make(in_the_way, kind)
    with pytest.raises(StorageError, match="not a regular file"):
        await shared.part("there", DATA, overwrite=True)
    part = await shared.part("later", DATA, overwrite=True)
    await fill(part, DATA)
    _make(shared.root / "later", kind)
    with pytest.raises(StorageError, match="not a regular file"):
        await part.commit()
    await part.close()
    assert stat.S_ISREG((shared.root / "later").lstat().st_mode) is False


def _make(path: Path, kind: str) -> None:
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("nowhere")


def _attributes(path: Path) -> FileAttributes:
    return Fingerprint.of(path.stat()).attributes


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_a_content_that_is_put_again_gets_the_attributes_of_that_put(shared: Shared) -> None:
    """The name is given content and attributes; nothing is hashed again, and a file that has just changed is left."""
    path = shared.drop("tool", DATA)
    row = await shared.store.publish_again(await shared.shares("tool", DATA), ATTRIBUTES)
    assert (row.modified_ns, row.executable, row.published_ns) == (*ATTRIBUTES, PUBLISH)
    assert shared.store.find(Name("tool")) == row
    assert _attributes(path) == ATTRIBUTES
    shared.drop("later", b"x")
    await shared.shares("later", b"x")
    assert shared.metrics.misses == 2
    fingerprint = shared.store.inventory.files[Name("tool")].fingerprint
    path.write_bytes(b"changed")
    assert shared.store.folder.root.set_attributes("tool", fingerprint, FileAttributes(7)) is None
    assert path.stat().st_mtime_ns != 7
