"""Contents are served from the files themselves, and never wrong."""

import asyncio
import os

import pytest

from minga_core.chunks import ChunkSet
from minga_core.errors import (
    ContentChangedError,
    ContentNotHeldError,
    FileNotFoundInDirectoryError,
    InvalidArgumentError,
)
from minga_core.names import Name
from minga_core.records import PUBLISH
from minga_peer.share import file_reader

from .conftest import Opener, Shared, chunk_of, eventually, fill, manifest_of, noise, read_chunk

MIB = 1024 * 1024
DATA = noise(2 * MIB + 3)
MANIFEST = manifest_of(DATA)
CONTENT = MANIFEST.content_id
COUNT = MANIFEST.geometry.chunk_count


@pytest.fixture
async def shared(opened: Opener) -> Shared:
    made = await opened()
    made.drop("file.bin", DATA)
    await made.shares("file.bin", DATA)
    return made


async def test_every_chunk_is_that_of_the_file(shared: Shared) -> None:
    """Read by many at once, with the manifest that proves them."""
    assert await shared.store.manifest(CONTENT) == MANIFEST
    assert shared.store.held(CONTENT) == ChunkSet.full(COUNT)
    chunks = await asyncio.gather(*(read_chunk(shared.store, CONTENT, index) for index in range(COUNT)))
    assert b"".join(chunks) == DATA
    with pytest.raises(InvalidArgumentError):
        await read_chunk(shared.store, CONTENT, COUNT)


async def no_news(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on the store learns of changes by reading alone."""

    async def ignore(paths: set[str]) -> None:
        return

    monkeypatch.setattr(shared.store.sync._comparer, "look_at", ignore)


@pytest.mark.parametrize("change", ["written", "truncated", "replaced", "deleted", "became a folder", "became a link"])
async def test_a_file_that_changed_is_never_served(
    shared: Shared, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the new bytes nor old ones under a name that has others: the read fails and the row goes at once."""
    await no_news(shared, monkeypatch)
    path, away = shared.root / "file.bin", shared.root.parent / "away"
    if change == "written":
        with path.open("r+b") as file:
            file.write(b"changed")
    elif change == "truncated":
        os.truncate(path, 100)
    else:
        path.rename(away)
        if change == "replaced":
            path.write_bytes(DATA[::-1])
        elif change == "became a folder":
            path.mkdir()
        elif change == "became a link":
            path.symlink_to(away)
    with pytest.raises(ContentChangedError):
        await read_chunk(shared.store, CONTENT, 0)
    assert shared.store.held(CONTENT) is None
    with pytest.raises(ContentNotHeldError):
        await read_chunk(shared.store, CONTENT, 0)


async def test_a_change_during_the_read_is_noticed(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bytes of that read are void."""
    await no_news(shared, monkeypatch)
    real = os.pread

    def pread(descriptor: int, length: int, offset: int) -> bytes:
        with (shared.root / "file.bin").open("r+b") as file:
            file.write(b"changed")
        return real(descriptor, length, offset)

    monkeypatch.setattr(os, "pread", pread)
    with pytest.raises(ContentChangedError):
        await read_chunk(shared.store, CONTENT, 0)


async def test_a_file_that_changed_while_served_comes_back_as_what_it_is(shared: Shared) -> None:
    """It is hashed again; when only its time changed, it is the same with the same time of publication."""
    before = await shared.published("file.bin", DATA, 77)
    os.utime(shared.root / "file.bin", ns=(1, 1))
    await eventually(lambda: shared.metrics.misses == 2, "it is hashed again")
    again = await shared.shares("file.bin", DATA)
    assert again.published_ns == before.published_ns
    assert await read_chunk(shared.store, CONTENT, 0) == chunk_of(DATA, 0)


async def test_a_bounded_number_of_files_is_kept_open(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that was not used for the longest time is closed."""
    monkeypatch.setattr(file_reader, "MAX_OPEN_FILES", 2)
    before = len(os.listdir("/proc/self/fd"))
    contents = []
    for number in range(5):
        shared.drop(f"f{number}", bytes([number]))
        contents.append((await shared.shares(f"f{number}", bytes([number]))).key.content_id)
    for content_id in contents * 2:
        await read_chunk(shared.store, content_id, 0)
    assert len(os.listdir("/proc/self/fd")) <= before + 2


async def test_digests_that_are_lost_are_hashed_again(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    """A manifest that the index cannot give is not the end of the file."""
    monkeypatch.setattr(shared.store.folder.index._file, "manifest", lambda _: None)
    with pytest.raises(ContentNotHeldError):
        await shared.store.manifest(CONTENT)
    monkeypatch.undo()
    await shared.shares("file.bin", DATA)
    assert await shared.store.manifest(CONTENT) == MANIFEST


async def test_one_content_under_two_names_is_held_until_both_are_gone(shared: Shared) -> None:
    """Served from whichever is there."""
    shared.drop("copy", DATA)
    await shared.shares("copy", DATA)
    await shared.store.remove(Name("file.bin"))
    assert await read_chunk(shared.store, CONTENT, 1) == chunk_of(DATA, 1)
    await shared.store.remove(Name("copy"))
    assert shared.store.held(CONTENT) is None


async def test_removing_deletes_unlists_and_prunes(shared: Shared) -> None:
    """The file, its row, and the folders that it leaves empty; what is not there cannot be removed."""
    shared.drop("a/b/c", b"x")
    row = await shared.published("a/b/c", b"x", 77)
    assert await shared.store.remove(Name("a/b/c")) == row
    assert shared.content("a/b/c") is None
    assert not (shared.root / "a").exists()
    with pytest.raises(FileNotFoundInDirectoryError):
        await shared.store.remove(Name("a/b/c"))
    shared.drop("a/b/c", b"x")
    assert (await shared.shares("a/b/c", b"x")).published_ns == PUBLISH


async def test_watchers_hear_each_new_chunk_and_the_end(opened: Opener) -> None:
    """Many watchers; one that is slow hears several chunks at once and misses none."""
    shared = await opened()
    part = await shared.part("new", DATA)
    await fill(part, DATA, [0])
    heard: list[list[int]] = [[], []]

    async def follow(which: int) -> None:
        async for news in shared.store.follow(CONTENT):
            heard[which].extend(news)

    slow = shared.store.follow(CONTENT)
    assert list(await anext(slow)) == [0]
    followers = [asyncio.create_task(follow(which)) for which in range(2)]
    for index in range(1, COUNT):
        await fill(part, DATA, [index])
        await eventually(lambda index=index: all(index in each for each in heard), "the chunk is heard of")
    await part.commit()
    await asyncio.gather(*followers)
    assert heard == [list(range(COUNT))] * 2
    assert list(await anext(slow)) == list(range(1, COUNT))
    with pytest.raises(StopAsyncIteration):
        await anext(slow)


async def test_watchers_of_a_part_that_is_discarded_are_let_go(opened: Opener) -> None:
    """Their watch ends."""
    shared = await opened()
    part = await shared.part("new", DATA)
    await fill(part, DATA, [0])

    async def follow() -> int:
        return sum([len(news) async for news in shared.store.follow(CONTENT)])

    follower = asyncio.create_task(follow())
    await asyncio.sleep(0)
    await part.discard()
    async with asyncio.timeout(5):
        assert await follower == 1
