"""Many small files at once: placed whole or not at all, never over something else, and read for others."""

import asyncio
import errno
import os
import signal
import subprocess
import sys
from contextlib import aclosing
from pathlib import Path

import pytest

from minga_core.errors import ChunkCorruptError
from minga_core.ids import ContentId
from minga_core.names import Name
from minga_engine.parts.placing import MAX_SMALL_BYTES, SmallContent, SmallFile
from minga_engine.wire.groups import MAX_GROUP_BYTES
from minga_peer.share import small_store as module
from minga_peer.share.root import Root
from minga_peer.share.small_store import SmallFiles

from .conftest import Opener, eventually, manifest_of, noise


def small(name: str, data: bytes) -> SmallFile:
    """A file as a download has it."""
    return SmallFile(Name(name), SmallContent.of(data, manifest_of(data).content_id), published_ns=7)


async def read(files: SmallFiles, content_ids: list[ContentId]) -> list[list[tuple[int, bytes]]]:
    """The groups in which contents are read."""
    async with aclosing(files.read(content_ids, MAX_GROUP_BYTES)) as groups:
        return [group async for group in groups]


async def test_many_files_are_placed_shared_and_known_from_then_on(opened: Opener) -> None:
    """1. Files of several folders are stored, one is empty. 2. They are announced. 3. A restart hashes none."""
    data = {f"d{number % 3}/sub/{number:03}": noise(number * 10, number) for number in range(100)}
    async with opened.running() as shared:
        before = len(shared.seen.changes)
        paths = await shared.store.small.store([small(name, content) for name, content in data.items()])
        assert paths == [str(shared.root / name) for name in data]
        assert {row.published_ns for row in shared.store.table.rows()} == {7}
        assert {name: (shared.root / name).read_bytes() for name in data} == data
        assert len(shared.seen.changes) == before + 1
        assert shared.store.status().file_count == 100
    async with opened.running() as again:
        assert again.store.status().file_count == 100
        assert (again.metrics.hits, again.metrics.misses) == (100, 0)


def test_bytes_that_are_something_else_never_become_a_small_content() -> None:
    """What is stored was proven: by the manifest's digest, which the bytes' digest and size make."""
    content_id = manifest_of(b"right").content_id
    for wrong in (b"wrong", b"right\0", b"", b"righ"):
        with pytest.raises(ChunkCorruptError):
            SmallContent.of(wrong, content_id)
    most = noise(MAX_SMALL_BYTES)
    assert SmallContent.of(most, manifest_of(most).content_id).data == most
    two_chunks = noise(MAX_SMALL_BYTES + 1)
    with pytest.raises(ChunkCorruptError):
        SmallContent.of(two_chunks, manifest_of(two_chunks).content_id)
    assert SmallContent.of(b"", manifest_of(b"").content_id).manifest.size_bytes == 0


async def test_what_is_placed_here_is_no_change_of_the_folder(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files without a name are events of a watched folder too, under names that nothing has: nobody looks for them."""
    shared = await opened()
    looked_at: list[str] = []
    look, scan = Root.look, Root.scan
    monkeypatch.setattr(Root, "look", lambda self, paths: looked_at.extend(paths) or look(self, paths))
    monkeypatch.setattr(Root, "scan", lambda self, below="", known=None: looked_at.append(below) or scan(self, below))
    marks = iter(range(1_000_000))
    await eventually(
        lambda: shared.drop(f"d/mark{next(marks)}", b"").exists() and any("mark" in path for path in looked_at),
        "the folder is watched",
    )
    looked_at.clear()
    await shared.store.small.store([small(f"d/{number}", noise(3000, number)) for number in range(100)])
    shared.drop("d/dropped", b"x")
    await shared.shares("d/dropped", b"x")
    assert [path for path in looked_at if "#" in path] == []


async def test_what_has_the_name_already_stays(opened: Opener) -> None:
    """Shared files, files that nobody has hashed yet, links and folders are never replaced; the others go on."""
    shared = await opened()
    shared.drop("shared", b"theirs")
    await shared.shares("shared", b"theirs")
    (shared.root / "link").symlink_to("nowhere")
    (shared.root / "folder").mkdir()
    (shared.root / "file").write_bytes(b"in the way")
    unhashed = shared.root / "unhashed"
    unhashed.write_bytes(b"just dropped")
    names = ["shared", "link", "folder", "file/below", "unhashed", "free", "free"]
    paths = await shared.store.small.store([small(name, name.encode()) for name in names])
    assert [path is not None for path in paths] == [False] * 5 + [True] * 2
    assert (shared.root / "shared").read_bytes() == b"theirs"
    assert (shared.root / "link").is_symlink()
    assert unhashed.read_bytes() == b"just dropped"
    assert (shared.root / "free").read_bytes() == b"free"


async def test_no_link_leads_out_of_the_shared_folder(opened: Opener, tmp_path: Path) -> None:
    """A folder that is a symbolic link is not followed."""
    shared = await opened()
    outside = tmp_path / "outside"
    outside.mkdir()
    (shared.root / "way").symlink_to(outside)
    assert await shared.store.small.store([small("way/file", b"x"), small("way/on/file", b"x")]) == [None, None]
    assert list(outside.iterdir()) == []


async def test_what_does_not_fit_is_left(opened: Opener) -> None:
    """As many as the capacity has room for; the others are reported as left."""
    shared = await opened(capacity_bytes=2500)
    paths = await shared.store.small.store([small(f"f{number}", noise(1000, number)) for number in range(4)])
    assert [path is not None for path in paths] == [True, True, False, False]
    assert sorted(path.name for path in shared.root.glob("f*")) == ["f0", "f1"]
    assert shared.store.status().free_bytes == 500


async def test_a_file_system_without_nameless_files_gets_none(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such files are downloaded the other way; nothing is left behind, and no space stays set apart."""
    shared = await opened()
    real = os.open

    def refuse(path: str, flags: int, *arguments: int, **options: int) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "not supported")
        return real(path, flags, *arguments, **options)

    monkeypatch.setattr(module.os, "open", refuse)
    assert await shared.store.small.store([small("d/f", b"x")]) == [None]
    assert list((shared.root / "d").iterdir()) == []
    assert shared.store.folder.space.reserved_bytes == 0


async def test_a_cancelled_store_leaves_whole_files_that_are_shared(opened: Opener) -> None:
    """Once it has begun it goes to its end: what has a name is known and announced."""
    shared = await opened()
    files = [small(f"f{number:03}", noise(5000, number)) for number in range(200)]
    work = asyncio.create_task(shared.store.small.store(files))
    await eventually(lambda: any(shared.root.glob("f*")) or work.done(), "the first file has its name")
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    there = {path.name for path in shared.root.glob("f*")}
    assert there == {row.key.name for row in shared.store.table.rows()}
    assert all((shared.root / file.name).read_bytes() == file.content.data for file in files if file.name in there)


async def test_small_contents_are_read_in_groups(opened: Opener) -> None:
    """Whole ones of one chunk alone, each with its place; parts, larger ones and strangers are left out."""
    shared = await opened()
    data = [noise(200_000, number) for number in range(6)]
    await shared.store.small.store([small(f"f{number}", one) for number, one in enumerate(data)])
    large = noise(MAX_SMALL_BYTES + 1)
    shared.drop("large", large)
    await shared.shares("large", large)
    asked = [manifest_of(one).content_id for one in (large, *data, b"stranger")]
    groups = await read(shared.store.small, asked)
    assert [len(group) for group in groups] == [2, 2, 2]
    assert [item for group in groups for item in group] == list(enumerate(data, 1))
    async with aclosing(shared.store.small.read(asked, 1000)) as one_by_one:
        assert [len(group) async for group in one_by_one] == [1] * 6


async def test_a_file_that_changed_is_not_served(opened: Opener) -> None:
    """It is left out, no longer announced, and shared again as what it is now."""
    shared = await opened()
    shared.drop("f", b"before")
    row = await shared.shares("f", b"before")
    (shared.root / "f").write_bytes(b"after!")
    assert await read(shared.store.small, [row.key.content_id]) in ([], [[]])
    await shared.shares("f", b"after!")


_STORER = """
import asyncio, os, sys
from pathlib import Path
from minga_core.clock import SystemClock
from minga_core.ids import digest
from minga_core.manifest import Manifest
from minga_core.names import Name
from minga_engine.parts.placing import SmallContent, SmallFile
from minga_peer.share.store import ContentStore, StoreSettings

async def main():
    store = await ContentStore.open(StoreSettings(Path(sys.argv[1])), SystemClock())
    for batch in range(1000):
        files = []
        for number in range(40):
            data = f"{batch}-{number} ".encode() * 2000
            content_id = Manifest.from_digests(len(data), digest(data)).content_id
            files.append(SmallFile(Name(f"b{batch:03}/{number}"), SmallContent.of(data, content_id), 5))
        assert None not in await store.small.store(files)
        print(batch, flush=True)

asyncio.run(main())
"""


@pytest.mark.parametrize("after", [1, 3])
async def test_sigkill_leaves_whole_files_or_nothing(opened: Opener, tmp_path: Path, after: int) -> None:
    """1. A process stores batches. 2. It is killed without warning. 3. Every file there is whole, nothing else is left,
    and those that were announced are known without hashing."""
    root = tmp_path / "shared"
    writer = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _STORER, str(root)), stdout=subprocess.PIPE, cwd=Path(__file__).parents[4]
    )
    assert writer.stdout is not None
    async with asyncio.timeout(20):
        for _ in range(after):
            await writer.stdout.readline()
        writer.send_signal(signal.SIGKILL)
        await writer.wait()
    found = sorted(root.glob("b*/*"))
    assert len(found) >= 40 * after
    for path in found:
        batch, number = int(path.parent.name[1:]), int(path.name)
        assert path.read_bytes() == f"{batch}-{number} ".encode() * 2000
    assert list((root / ".minga" / "parts").iterdir()) == []
    async with opened.running(root) as shared:
        await eventually(lambda: shared.store.status().file_count == len(found), "all are shared")
        assert shared.metrics.hits >= 40 * after
