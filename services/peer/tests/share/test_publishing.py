"""What a peer knows of when its files were published, and what of it is kept."""

import errno
import os
import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from minga_core.attributes import FileAttributes
from minga_core.errors import StorageError
from minga_core.names import Name
from minga_core.records import FOUND, PUBLISH, Published, as_of_ns
from minga_engine.parts.files import Fingerprint
from minga_engine.parts.placing import SmallContent, SmallFile
from minga_peer.share.comparing import Comparer
from minga_peer.share.file_clock import FileClock
from minga_peer.share.hash_outcomes import HashOutcomes
from minga_peer.share.index_file import IndexFile
from minga_peer.share.root import Root, Scan

from .conftest import Opener, Shared, eventually, fill, manifest_of, noise

DATA = noise(300_000)
AS_OF = -2
"""Stands for all that `publish_as_of` makes."""


def times(shared: Shared) -> dict[str, int]:
    """The time of publication of each file, by its name, or PUBLISH, FOUND or AS_OF."""
    rows = shared.store.table.rows()
    return {row.key.name: row.published_ns if as_of_ns(row.published_ns) is None else AS_OF for row in rows}


def as_of(shared: Shared, name: str) -> bool:
    """Whether a file is published as of its last change."""
    row = shared.store.find(Name(name))
    return row is not None and as_of_ns(row.published_ns) == (shared.root / name).stat().st_ctime_ns


def make_files(root: Path, count: int) -> None:
    """Files `f0` to f<count>."""
    root.mkdir(exist_ok=True)
    for number in range(count):
        (root / f"f{number}").write_bytes(b"%d" % number)


async def test_files_that_were_there_before_the_index_are_found_and_new_ones_published(opened: Opener) -> None:
    """Which of them is which is kept over restarts until the registry has answered."""
    make_files(opened.root, 2)
    async with opened.running() as first:
        for number in range(2):
            await first.shares(f"f{number}", b"%d" % number)
        first.drop("new", b"new")
        await first.shares("new", b"new")
        assert times(first) == {"f0": FOUND, "f1": FOUND, "new": PUBLISH}
    second = await opened()
    assert times(second) == {"f0": FOUND, "f1": FOUND, "new": AS_OF}
    second.drop("f0", b"another")
    await second.shares("f0", b"another")
    assert times(second) == {"f0": PUBLISH, "f1": FOUND, "new": AS_OF}
    assert {row.key.name for row in second.store.table.unpublished.first(10)} == {"f0", "f1", "new"}


async def test_b3_a_file_of_the_first_scan_that_is_newer_than_the_peers_start_is_new(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As is one that somebody writes while a peer that has lost its index looks at the files it had. One with a time of
    the future was written under a wrong clock, nobody knows when."""
    make_files(opened.root, 2)
    real = Root.scan

    def written_meanwhile(self: Root, *args: Any, **kwargs: Any) -> Scan:
        if not (self.path / "meanwhile").exists():
            (self.path / "meanwhile").write_bytes(b"meanwhile")
        return real(self, *args, **kwargs)

    monkeypatch.setattr(Root, "scan", written_meanwhile)
    async with opened.running() as shared:
        await shared.shares("meanwhile", b"meanwhile")
        assert times(shared) == {"f0": FOUND, "f1": FOUND, "meanwhile": AS_OF}
        assert as_of(shared, "meanwhile")
    shutil.rmtree(opened.root / ".minga")
    day_ago_ns = time.time_ns() - 86_400 * 10**9
    monkeypatch.setattr(Root, "scan", real)
    monkeypatch.setattr(FileClock, "now_ns", lambda self: day_ago_ns)
    again = await opened()
    await again.shares("meanwhile", b"meanwhile")
    assert set(times(again).values()) == {FOUND}


async def test_a_crash_in_the_middle_of_the_first_scan_publishes_nothing(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it has not come to is found by the next start too; what comes after that is new."""
    monkeypatch.setattr("minga_peer.share.hash_queue.BATCH_FILES", 1)
    make_files(opened.root, 20)
    real, left = HashOutcomes._share_hashed, 5

    async def crash(self: HashOutcomes, files: list[object]) -> set[str]:
        nonlocal left
        left -= 1
        if left < 0:
            raise RuntimeError("killed")
        return await real(self, files)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(HashOutcomes, "_share_hashed", crash)
        async with opened.running(threads=1) as first:
            await eventually(lambda: left < 0, "it is killed")
    assert 0 < len(times(first)) < 20
    async with opened.running() as second:
        await eventually(lambda: len(times(second)) == 20, "all are shared")
        assert set(times(second).values()) == {FOUND}
    (opened.root / "later").write_bytes(b"later")
    third = await opened()
    await third.shares("later", b"later")
    assert times(third)["later"] == AS_OF


async def test_a_file_that_was_published_and_not_kept_is_published_as_of_its_change(opened: Opener) -> None:
    """A peer that was killed while its disk was full does not know that; what is written while it runs is new."""
    async with opened.running() as first:
        first.drop("old", b"old")
        await first.published("old", b"old", 77)
    with closing(sqlite3.connect(opened.root / ".minga/index.sqlite")) as database, database:
        assert database.execute("DELETE FROM files WHERE name = 'old'").rowcount == 1
    second = await opened()
    await second.shares("old", b"old")
    assert as_of(second, "old")
    second.drop("old", b"new")
    await second.shares("old", b"new")
    assert times(second) == {"old": PUBLISH}


@pytest.mark.parametrize("loss", ["deleted", "damaged"])
async def test_b3_a_lost_index_publishes_nothing(opened: Opener, loss: str) -> None:
    """All files are found, those that change from then on are new."""
    async with opened.running() as first:
        first.drop("a", b"a")
        await first.published("a", b"a", 77)
    if loss == "deleted":
        shutil.rmtree(opened.root / ".minga")
    else:
        (opened.root / ".minga/index.sqlite").write_bytes(noise(8192))
    second = await opened()
    await second.shares("a", b"a")
    assert times(second) == {"a": FOUND}
    second.drop("a", b"b")
    await second.shares("a", b"b")
    assert times(second) == {"a": PUBLISH}


async def test_a_file_that_changes_during_the_first_scan_is_new(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its owner works with it; another that is only given another mode is not."""
    make_files(opened.root, 2)
    for number in range(2):
        os.utime(opened.root / f"f{number}", ns=(1, 1))
    real, changed = Comparer._compare_some, False

    def change(self: Comparer, some: list[object]) -> set[str]:
        nonlocal changed
        found = real(self, some)  # type: ignore[arg-type]
        if not changed:
            changed = True
            (opened.root / "f0").write_bytes(b"another")
            (opened.root / "f1").chmod(0o600)
        return found

    monkeypatch.setattr(Comparer, "_compare_some", change)
    shared = await opened()
    await shared.shares("f0", b"another")
    await shared.shares("f1", b"1")
    assert times(shared) == {"f0": PUBLISH, "f1": FOUND}


async def test_an_answer_of_the_registry_is_kept_for_the_row_that_it_was_asked_for_alone(opened: Opener) -> None:
    """Not for another content that has the name now, nor for one that was put again meanwhile, nor for one that is
    gone. In the index, too."""
    make_files(opened.root, 1)
    async with opened.running() as first:
        asked = await first.shares("f0", b"0")
        first.drop("changed", b"before")
        changed = await first.shares("changed", b"before")
        first.drop("changed", b"after")
        await first.shares("changed", b"after")
        first.drop("good", b"good")
        good = await first.shares("good", b"good")
        gone = good._replace(key=good.key._replace(name=Name("gone")))
        await first.store.publish_again(asked, FileAttributes(asked.modified_ns))
        await first.store.files.set_published(
            [(asked, Published(77)), (changed, Published(78)), (gone, Published(79)), (good, Published(80))]
        )
        assert times(first) == {"f0": PUBLISH, "changed": PUBLISH, "good": 80}
    second = await opened()
    assert times(second) == {"f0": AS_OF, "changed": AS_OF, "good": 80}
    assert second.metrics.misses == 0


async def test_publishing_changes_neither_open_files_nor_what_is_served(opened: Opener) -> None:
    """A file that is being read when its time comes is the same file: a change of it is noticed still."""
    shared = await opened()
    shared.drop("a", DATA)
    row = await shared.shares("a", DATA)
    file = shared.store.inventory.files[row.key.name]
    async with shared.store.open_chunk(row.key.content_id, 0) as chunk:
        await shared.store.files.set_published([(row, Published(77))])
        assert chunk.read()
    shared.store.files.hash_again(file)
    assert shared.store.find(row.key.name) is None
    assert (await shared.shares("a", DATA)).published_ns == 77


@pytest.mark.parametrize(("began", "completed"), [(PUBLISH, 77), (77, PUBLISH), (PUBLISH, FOUND), (FOUND, PUBLISH)])
async def test_whoever_completes_a_part_decides_whether_it_is_published(
    opened: Opener, began: int, completed: int
) -> None:
    """A download that completes the part of an upload publishes nothing; an upload publishes what a download began."""
    async with opened.running() as first:
        part = await first.part("a", DATA, published_ns=began)
        await fill(part, DATA, [0])
        await part.close()
    second = await opened()
    part = await second.part("a", DATA, published_ns=completed)
    await fill(part, DATA)
    assert (await part.commit()).published_ns == completed
    assert times(second) == {"a": completed}
    await part.close()


def full(*arguments: object, **keywords: object) -> None:
    """What SQLite does on a full disk."""
    raise sqlite3.OperationalError("database or disk is full")


async def place(shared: Shared, name: str, data: bytes, published_ns: int, *, overwrite: bool = False) -> None:
    """Put a copy in place: as a part, or, if it is small and new, as a small file."""
    if not overwrite and len(data) < 1000:
        file = SmallFile(Name(name), SmallContent.of(data, manifest_of(data).content_id), published_ns)
        assert await shared.store.small.store([file]) == [str(shared.root / name)]
        return
    part = await shared.part(name, data, published_ns=published_ns, overwrite=overwrite)
    await fill(part, data)
    await part.commit()


async def test_a_copy_that_was_placed_and_not_kept_is_no_new_file(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A peer is killed after it has put copies of old versions in place and before it has written that into its index.
    They keep their times of publication."""
    async with opened.running() as first:
        first.drop("replaced", b"before")
        await first.published("replaced", b"before", 99)
        with monkeypatch.context() as killed:
            killed.setattr(IndexFile, "write", full)
            await place(first, "part", DATA, 77)
            await place(first, "small", b"small", 78)
            await place(first, "replaced", b"old", 79, overwrite=True)
            assert times(first) == {"part": 77, "small": 78, "replaced": 79}
            await first.store.aclose()
    second = await opened()
    await second.shares("replaced", b"old")
    await second.shares("small", b"small")
    await second.shares("part", DATA)
    assert times(second) == {"part": 77, "small": 78, "replaced": 79}


async def test_nothing_is_put_in_place_that_a_restart_would_take_for_new(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a disk without room for the few bytes in the index. Once there is room, the same part goes on."""
    shared = await opened()
    part = await shared.part("part", DATA, published_ns=77)
    await fill(part, DATA)
    with monkeypatch.context() as disk:
        disk.setattr(IndexFile, "intend", full)
        small = SmallFile(Name("small"), SmallContent.of(b"x", manifest_of(b"x").content_id), 78)
        assert await shared.store.small.store([small]) == [None]
        with pytest.raises(StorageError, match="cannot be written: database or disk is full"):
            await part.commit()
    assert [path.name for path in shared.root.iterdir()] == [".minga"]
    await part.close()
    part = await shared.part("part", DATA, published_ns=77)
    assert (await part.commit()).published_ns == 77


async def test_a_time_of_publication_that_could_not_be_kept_is_asked_for_as_of_the_change(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1. A file is published on a full disk, and another replaced. 2. The peer is killed. 3. Neither is new at the next
    start: others may have published since."""
    async with opened.running() as first:
        first.drop("replaced", b"before")
        await first.published("replaced", b"before", 76)
        with monkeypatch.context() as disk:
            disk.setattr(IndexFile, "write", full)
            for name in ("new", "replaced"):
                first.drop(name, b"after")
                await first.published(name, b"after", 77)
            await first.store.aclose()
    second = await opened()
    for name in ("new", "replaced"):
        await second.shares(name, b"after")
        assert as_of(second, name)


async def test_a_copy_that_was_placed_although_placing_failed_is_no_new_file(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file has its name, and then its folder cannot be synced: the watch finds it, and hashes it."""
    shared = await opened()
    real = Root.place

    def place(self: Root, source: Path, path: str, *, overwrite: bool) -> Fingerprint:
        real(self, source, path, overwrite=overwrite)
        raise OSError(errno.EIO, "Input/output error")

    part = await shared.part("part", DATA, published_ns=77)
    await fill(part, DATA)
    with monkeypatch.context() as disk:
        disk.setattr(Root, "place", place)
        with pytest.raises(StorageError):
            await part.commit()
    await part.close()
    assert (await shared.shares("part", DATA)).published_ns == 77
    assert not shared.store.folder.index.intents
    for data in (b"another", DATA):
        shared.drop("part", data)
        assert (await shared.shares("part", data)).published_ns == PUBLISH


TAG, TICKET = b"tag of 16 bytes!", b"ticket"


async def test_a_proof_is_kept_with_its_time(opened: Opener) -> None:
    """Over a restart, and when the file is only touched; another content is to be published, and has none."""
    async with opened.running() as first:
        first.drop("f", b"x")
        row = await first.published("f", b"x", 77, TAG)
        assert (row.published_ns, row.tag) == (77, TAG)
    second = await opened()
    assert await second.shares("f", b"x") == row
    second.drop("f", b"x")
    await eventually(lambda: second.store.find(Name("f")) != row, "the file is touched")
    touched = await second.shares("f", b"x")
    assert (touched.published_ns, touched.tag) == (77, TAG)
    second.drop("f", b"y")
    changed = await second.shares("f", b"y")
    assert (changed.published_ns, changed.tag) == (PUBLISH, b"")


async def test_an_index_without_tags_is_read(opened: Opener) -> None:
    """That of the version before: nothing is hashed again, and times are as they were."""
    async with opened.running() as first:
        first.drop("f", b"x")
        row = await first.published("f", b"x", 77)
    with closing(sqlite3.connect(opened.root / ".minga/index.sqlite")) as database, database:
        for table in ("files", "intents"):
            database.execute(f"ALTER TABLE {table} DROP COLUMN tag")
        database.execute("PRAGMA user_version = 3")
    async with opened.running() as second:
        assert await second.shares("f", b"x") == row
        assert second.metrics.misses == 0
        await second.published("f", b"x", 77, TAG)
    assert (await (await opened()).shares("f", b"x")).tag == TAG


async def test_an_index_with_manifests_of_one_chunk_is_read(opened: Opener) -> None:
    """That of version 4: nothing is hashed again, and the contents are served."""
    async with opened.running() as first:
        first.drop("f", b"x")
        row = await first.published("f", b"x", 77)
        manifest = await first.store.manifest(row.key.content_id)
    with closing(sqlite3.connect(opened.root / ".minga/index.sqlite")) as database, database:
        database.execute("ALTER TABLE files DROP COLUMN digest")
        database.execute("INSERT INTO manifests VALUES (?, ?)", (row.key.content_id.raw, manifest.encode()))
        database.execute("PRAGMA user_version = 4")
    async with opened.running() as second:
        assert await second.shares("f", b"x") == row
        assert await second.store.manifest(row.key.content_id) == manifest
        assert second.metrics.misses == 0


async def test_a_ticket_is_kept_until_its_upload_is_published(opened: Opener) -> None:
    """A peer that is killed in between still may publish what was uploaded to it: new there, or there already."""
    async with opened.running() as first:
        part = await first.part("new", b"n", published_ns=PUBLISH, tag=TICKET)
        await fill(part, b"n")
        await part.commit()
        first.drop("old", b"o")
        row = await first.published("old", b"o", 77, TAG)
        again = await first.store.publish_again(row, FileAttributes(row.modified_ns), TICKET)
        assert (again.published_ns, again.tag) == (PUBLISH, TICKET)
    second = await opened()
    for name, data in (("new", b"n"), ("old", b"o")):
        found = await second.shares(name, data)
        assert found.published_ns < PUBLISH
        assert found.tag == TICKET
    assert second.store.table.unpublished.first(10) == second.store.table.rows()
