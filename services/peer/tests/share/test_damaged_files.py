"""Rot: bytes that changed on disk although nothing shows it. It is found, not shared, and never a new version."""

import errno
import os
from typing import Any

import pytest

from minga_core.errors import AlreadyRunningError, BusyError, ContentNotHeldError, InvalidArgumentError, StorageError
from minga_core.names import Name
from minga_peer.share import verifying_all
from minga_peer.share.verifying import Verdict

from .conftest import Opener, Shared, chunk_of, eventually, fill, noise, read_chunk
from .rot import change_unseen, rot

MIB = 1024 * 1024
DATA = noise(3 * MIB)


@pytest.fixture
async def shared(opened: Opener) -> Shared:
    made = await opened()
    made.drop("a", DATA)
    await made.shares("a", DATA)
    return made


async def damaged(shared: Shared, name: str = "a", offset: int = MIB) -> bytes:
    """Let a file rot, and the store find it."""
    data = await rot(shared.store, name, offset)
    file = shared.store.inventory.files[Name(name)]
    verified = await shared.store.verifier.verify(file, shared.store.folder.disk)
    assert verified.verdict is Verdict.DAMAGED
    return data


async def test_a_rotten_file_is_not_shared_and_stays_on_disk(shared: Shared) -> None:
    """No row, a line in the status, its bytes untouched, and no scan makes a new version of it."""
    data = await damaged(shared)
    assert shared.store.table.rows() == []
    assert shared.problem("a is damaged: chunk 4 of a is not what was hashed")
    assert len(shared.store.folder.damaged) == 1
    before = shared.metrics.misses
    await shared.store.sync._comparer.compare(shared.store.folder.root.scan())
    await shared.store.sync._comparer.look_at({"a"})
    assert (shared.content("a"), shared.store.sync.pending_count, shared.metrics.misses) == (None, 0, before)
    assert (shared.root / "a").read_bytes() == data


async def test_a_rotten_file_that_is_hashed_again_is_damaged_too(shared: Shared) -> None:
    """Whatever made the store look again: other bytes under the same fingerprint are no new version."""
    await rot(shared.store, "a")
    shared.store.files.hash_again(shared.store.inventory.files[Name("a")])
    await eventually(lambda: len(shared.store.folder.damaged) == 1, "it is found")
    assert shared.content("a") is None


async def test_damage_is_remembered_over_a_restart(opened: Opener) -> None:
    """And is over once the file was replaced."""
    async with opened.running() as first:
        first.drop("a", DATA)
        await first.shares("a", DATA)
        await damaged(first)
    second = await opened()
    assert len(second.store.folder.damaged) == 1
    assert second.content("a") is None
    second.drop("a", b"new")
    await second.shares("a", b"new")
    assert len(second.store.folder.damaged) == 0


async def test_a_state_of_damage_that_makes_no_sense_is_none(opened: Opener) -> None:
    """The file that keeps it is a cache."""
    opened.root.mkdir()
    (opened.root / ".minga").mkdir()
    (opened.root / ".minga/integrity.json").write_text('{"scrub": {}, "damaged": 7}')
    shared = await opened()
    assert len(shared.store.folder.damaged) == 0


@pytest.mark.parametrize("how", ["changed", "touched", "deleted", "its folder deleted", "removed"])
async def test_a_file_that_is_changed_or_gone_is_damaged_no_more(opened: Opener, how: str) -> None:
    """Touching it says that the bytes are right as they are: they become a new version."""
    shared = await opened()
    path = shared.drop("dir/a", DATA)
    await shared.shares("dir/a", DATA)
    data = await damaged(shared, "dir/a")
    if how == "changed":
        path.write_bytes(b"new")
        await shared.shares("dir/a", b"new")
    elif how == "touched":
        os.utime(path)
        await shared.shares("dir/a", data)
    elif how == "removed":
        await shared.store.remove(Name("dir/a"))
        assert not path.exists()
    else:
        path.unlink()
        if how == "its folder deleted":
            path.parent.rmdir()
    await eventually(lambda: len(shared.store.folder.damaged) == 0, "the state is over")


async def test_a_file_that_is_good_again_is_shared_again(shared: Shared) -> None:
    """The memory was wrong and not the disk: the next look at all of it finds that out."""
    content = shared.content("a")
    await damaged(shared)
    await change_unseen(shared.store, "a", DATA)
    file = shared.store.folder.damaged.get(Name("a"))
    assert file is not None
    verified = await shared.store.verifier.verify(file, shared.store.folder.disk)
    assert (verified.verdict, shared.content("a")) == (Verdict.GOOD, content)
    assert len(shared.store.folder.damaged) == 0


async def test_a_file_that_is_changed_while_it_is_read_is_not_damaged(
    shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program writes it: it is a new version."""
    real = os.preadv

    def preadv(*arguments: Any) -> int:
        monkeypatch.undo()
        (shared.root / "a").write_bytes(b"new")
        return real(*arguments)

    file = shared.store.inventory.files[Name("a")]
    monkeypatch.setattr(os, "preadv", preadv)
    assert (await shared.store.verifier.verify(file, shared.store.folder.disk)).verdict is Verdict.CHANGED
    await shared.shares("a", b"new")


async def test_a_file_that_cannot_be_read_is_unreadable_until_it_can(
    shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EIO is no traceback, and no new version."""

    def fails(*_: Any) -> Any:
        raise OSError(errno.EIO, "Input/output error")

    file = shared.store.inventory.files[Name("a")]
    with monkeypatch.context() as broken:
        broken.setattr(os, "preadv", fails)
        verified = await shared.store.verifier.verify(file, shared.store.folder.disk)
        assert (verified.verdict, verified.why) == (Verdict.UNREADABLE, "a cannot be read: input/output error")
        assert shared.store.table.rows() == []
        await eventually(lambda: len(shared.problem("cannot be read")) == 1, "status says so")
    shared.store.sync.rescan()
    await shared.shares("a", DATA)


async def test_a_file_that_stays_unreadable_is_read_ever_more_seldom(
    shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each attempt may read all of a large file; a change of the file, a right say, has it tried at once."""

    def fails(*_: Any) -> Any:
        raise OSError(errno.EIO, "Input/output error")

    sync, attempts = shared.store.sync, []
    with monkeypatch.context() as broken:
        broken.setattr(os, "preadv", fails)
        shared.store.files.hash_again(shared.store.inventory.files[Name("a")])
        await eventually(lambda: shared.problem("cannot be read"), "it was tried")
        for _ in range(16):
            await sync._comparer.compare(shared.store.folder.root.scan())
            attempts.append(sync.pending_count)
            await eventually(lambda: not sync.pending_count, "it was tried")
    assert attempts == [1, 0, 1, 0, 0, 0, 1] + 7 * [0] + [1, 0]
    (shared.root / "a").chmod(0o600)
    await shared.shares("a", DATA)


async def test_small_files_are_verified_together(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """One good, one rotten, one empty, one gone."""
    shared = await opened()
    for name, data in (("good", b"1"), ("rotten", b"2"), ("empty", b""), ("gone", b"3")):
        shared.drop(name, data)
        await shared.shares(name, data)
    await rot(shared.store, "rotten")
    files = list(shared.store.inventory.files.values())
    (shared.root / "gone").unlink()
    verified = await shared.store.verifier.verify_small(files, shared.store.folder.disk)
    assert {each.file.name: each.verdict for each in verified} == {
        "good": "good",
        "rotten": "damaged",
        "empty": "good",
        "gone": "changed",
    }


async def test_verify_reads_all_files_with_a_prefix(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small and large, damaged ones too; nothing outside of the prefix; one verification at a time."""
    monkeypatch.setattr(verifying_all, "MAX_BAD_FILES", 1)
    shared = await opened()
    for name, data in (("d/1", b"1"), ("d/2", b"2"), ("d/3", DATA), ("d/4", DATA[::-1]), ("e", b"5")):
        shared.drop(name, data)
        await shared.shares(name, data)
    await damaged(shared, "d/4", 0)
    for name in ("d/2", "d/3", "e"):
        await rot(shared.store, name)
    found = [step async for step in shared.store.verify("d/")]
    assert sorted(bad.name for step in found for bad in step.bad_files) == ["d/2", "d/3", "d/4"]
    assert (found[-1].file_count, found[-1].checked_count) == (4, 4)
    assert found[-1].checked_bytes == found[-1].total_bytes == 2 + 2 * len(DATA)
    assert shared.content("d/1") is not None
    assert shared.content("e") is not None
    assert len(shared.store.folder.damaged) == 3
    first = shared.store.verify("")
    await anext(first)
    with pytest.raises(AlreadyRunningError):
        await anext(shared.store.verify(""))
    await first.aclose()
    assert [step async for step in shared.store.verify("none")][-1].file_count == 0


async def test_a_holder_whose_chunk_was_refused_looks_at_its_file(shared: Shared) -> None:
    """The chunk that is named is read; another one of the same file is not."""
    row = await shared.shares("a", DATA)
    content = row.key.content_id
    await rot(shared.store, "a", MIB)
    shared.store.report(content, 0, "host")
    await eventually(lambda: shared.metrics.rechecked == [True], "the good chunk is read")
    assert shared.content("a") == content
    shared.store.report(content, 4, "host")
    await eventually(lambda: shared.metrics.rechecked == [True, False], "the wrong chunk is read")
    assert shared.store.held(content) is None
    with pytest.raises(ContentNotHeldError):
        shared.store.report(content, 4, "host")


async def test_reports_are_not_believed_and_bounded(shared: Shared) -> None:
    """A liar costs few reads: a good chunk is not read twice, and one host may name so many."""
    content = (await shared.shares("a", DATA)).key.content_id
    for _ in range(3):
        shared.store.report(content, 0, "liar")
    await eventually(lambda: shared.metrics.rechecked == [True], "it is read once")
    with pytest.raises(InvalidArgumentError):
        shared.store.report(content, 12, "liar")
    big = noise(40 * 256 * 1024)
    shared.drop("b", big)
    other = (await shared.shares("b", big)).key.content_id
    for index in range(31):
        shared.store.report(other, index, "liar")
    with pytest.raises(BusyError):
        shared.store.report(other, 31, "liar")
    shared.store.report(other, 39, "another")
    await eventually(lambda: len(shared.metrics.rechecked) == 33, "those of others are read")
    assert all(shared.metrics.rechecked)


async def test_a_wrong_chunk_of_a_part_is_missing_again(opened: Opener) -> None:
    """While it is written, and while it is not; also one that cannot be read as it is sent."""
    shared = await opened()
    part = await shared.part("a", DATA)
    await fill(part, DATA, range(4))
    for index in (1, 2):
        with part.files.data_path.open("r+b") as opened_part:
            opened_part.seek(part.manifest.geometry.offset(index))
            opened_part.write(b"rot")
    shared.store.report(part.target.content_id, 1, "host")
    await eventually(lambda: list(part.held) == [0, 2, 3], "it is not announced any more")
    await part.close()
    shared.store.report(part.target.content_id, 2, "host")
    await eventually(lambda: list(part.held) == [0, 3], "it is not announced any more")


async def test_an_unreadable_chunk_of_a_part_is_not_announced(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """What fails as it is sent, and when it is read once more, is missing from then on, and can be fetched again."""
    shared = await opened()
    part = await shared.part("a", DATA)
    await fill(part, DATA, range(2))
    content = part.target.content_id

    async def send_badly() -> None:
        async with shared.store.open_chunk(content, 1):
            raise StorageError("input/output error")

    with pytest.raises(StorageError):
        await send_badly()
    assert list(part.held) == [0, 1], "it can be read after all"

    def fails(*_: Any) -> Any:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(os, "preadv", fails)
        with pytest.raises(StorageError):
            await send_badly()
    assert list(part.held) == [0]
    await fill(part, DATA, [1])
    assert await read_chunk(shared.store, content, 1) == chunk_of(DATA, 1)
