"""Files that are not what was hashed any more, and times that tell little."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from minga_engine.transfer.locating import Located

from .conftest import Opener


async def test_a_file_changed_in_place_with_its_mtime_put_back_is_hashed_again(opened: Opener) -> None:
    """While the store runs, and while it does not: the change time cannot be put back."""
    async with opened.running() as first:
        path = first.drop("a", b"before")
        await first.shares("a", b"before")
        _change_in_place(path, b"behind")
        await first.shares("a", b"behind")
    _change_in_place(path, b"again!")
    second = await opened()
    await second.shares("a", b"again!")


async def test_a_local_copy_that_was_changed_is_not_delivered(opened: Opener) -> None:
    """Not even before the watch has seen the change: one file, and many small ones."""
    async with opened.running() as shared:
        path = shared.drop("a", b"before")
        row = await shared.shares("a", b"before")
        located = Located(row.key.name, row.key.content_id, 6, row.published_ns, [])
        assert await shared.store.present(row.key.name, row.key.content_id) == path
        assert [done.name for done in (await shared.store.small.sort([located]))[0]] == ["a"]
        _change_in_place(path, b"behind")
        assert await shared.store.present(row.key.name, row.key.content_id) is None
        await shared.shares("a", b"behind")
        _change_in_place(path, b"before")
        assert (await shared.store.small.sort([located]))[0] == []


async def test_an_index_of_the_version_before_keeps_when_files_were_published(opened: Opener) -> None:
    """It lacks the change time: files are hashed again, and are not published anew."""
    async with opened.running() as first:
        first.drop("a", b"x")
        row = await first.published("a", b"x", 77)
    with closing(sqlite3.connect(opened.root / ".minga/index.sqlite")) as database, database:
        for column in ("ctime", "executable", "tag"):
            database.execute(f"ALTER TABLE files DROP COLUMN {column}")
        for table in ("complete", "intents"):
            database.execute(f"DROP TABLE {table}")
        database.execute("PRAGMA user_version = 1")
    second = await opened()
    assert await second.shares("a", b"x") == row
    assert second.metrics.misses == 1


@pytest.mark.parametrize("seconds", [20_000_000_000, -300_000_000])
async def test_one_modification_time_out_of_range_keeps_no_other_file_from_being_shared(
    opened: Opener, seconds: int
) -> None:
    """After 2262, and before 1970: shared with the nearest time that can be written."""
    opened.root.mkdir()
    for name in ("odd", "other"):
        (opened.root / name).write_bytes(b"x")
    os.utime(opened.root / "odd", (seconds, seconds))
    async with opened.running() as first:
        assert 0 <= (await first.shares("odd", b"x")).modified_ns < 1 << 63
        await first.shares("other", b"x")
    second = await opened()
    await second.shares("odd", b"x")
    assert second.metrics.misses == 0


def _change_in_place(path: Path, data: bytes) -> None:
    status = path.stat()
    with path.open("r+b") as file:
        file.write(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
