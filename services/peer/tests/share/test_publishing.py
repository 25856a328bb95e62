"""What a peer knows of when its files were published, and what of it is kept."""

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from minga_core.attributes import FileAttributes
from minga_core.names import Name
from minga_core.records import FOUND, PUBLISH, PUBLISH_ONCE
from minga_peer.share.comparing import Comparer
from minga_peer.share.hash_outcomes import HashOutcomes

from .conftest import Opener, Shared, eventually, fill, noise

DATA = noise(300_000)


def times(shared: Shared) -> dict[str, int]:
    """The time of publication of each file, by its name."""
    return {row.key.name: row.published_ns for row in shared.store.table.rows()}


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
    assert times(second) == {"f0": FOUND, "f1": FOUND, "new": PUBLISH_ONCE}
    second.drop("f0", b"another")
    await second.shares("f0", b"another")
    assert times(second) == {"f0": PUBLISH, "f1": FOUND, "new": PUBLISH_ONCE}
    assert {row.key.name for row in second.store.table.unpublished.values()} == {"f0", "f1", "new"}


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
    assert times(third)["later"] == PUBLISH_ONCE


async def test_a_file_that_was_placed_and_not_kept_is_published_once(opened: Opener) -> None:
    """A peer that is killed between the two, or whose disk is full, does not know that it is a copy of an old version;
    what is written while it runs is new for sure."""
    async with opened.running() as first:
        first.drop("old", b"old")
        await first.published("old", b"old", 77)
    with closing(sqlite3.connect(opened.root / ".minga/index.sqlite")) as database, database:
        assert database.execute("DELETE FROM files WHERE name = 'old'").rowcount == 1
    second = await opened()
    await second.shares("old", b"old")
    assert times(second) == {"old": PUBLISH_ONCE}
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
        await first.store.files.set_published([(asked, 77), (changed, 78), (gone, 79), (good, 80)])
        assert times(first) == {"f0": PUBLISH, "changed": PUBLISH, "good": 80}
    second = await opened()
    assert times(second) == {"f0": PUBLISH_ONCE, "changed": PUBLISH_ONCE, "good": 80}
    assert second.metrics.misses == 0


async def test_publishing_changes_neither_open_files_nor_what_is_served(opened: Opener) -> None:
    """A file that is being read when its time comes is the same file: a change of it is noticed still."""
    shared = await opened()
    shared.drop("a", DATA)
    row = await shared.shares("a", DATA)
    file = shared.store.inventory.files[row.key.name]
    async with shared.store.open_chunk(row.key.content_id, 0) as chunk:
        await shared.store.files.set_published([(row, 77)])
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
