"""Folders through the real command: small files together, large ones beside them, with a daemon and without one."""

import asyncio
import hashlib
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest

from minga_cli.localprocess import module_command

from .conftest import Story, eventually, noise, running

pytestmark = pytest.mark.e2e

SMALL_COUNT = 300
LARGE_BYTES = 3 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended."""

    code: int | None
    out: str
    err: str


async def minga(story: Story, control: Path, *arguments: str, interrupt_at: Path | None = None) -> Ended:
    """Runs the command; with Ctrl-C as soon as there is something in a folder."""
    command = module_command("minga_cli", "--locator", story.net.locator_url, "--control", str(control), *arguments)
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, cwd=story.net.directory
    )
    if interrupt_at is not None:

        async def begun() -> bool:
            return process.returncode is not None or bool(digests(interrupt_at))

        await eventually(begun, "something is there")
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
    out, err = await process.communicate()
    return Ended(process.returncode, out.decode(), err.decode())


def digests(folder: Path) -> dict[str, str]:
    """What is below a folder."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


async def share_folder(story: Story, small_count: int = SMALL_COUNT) -> dict[str, str]:
    """A folder of many small files, an empty one and a large one appears on the first peer, and everywhere."""
    folder = story.peers[0].share_dir / "set"
    for number in range(small_count):
        path = folder / f"{number % 3}" / f"{number:04}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(noise(number * 20 + 1))
    (folder / "empty").touch()
    (folder / "large.bin").write_bytes(noise(LARGE_BYTES))
    wanted = digests(folder)

    async def listed() -> bool:
        return len(await story.names()) == len(wanted)

    await eventually(listed, "all are listed")
    return wanted


async def test_a_folder_arrives_whole_with_a_daemon_and_without_one(tmp_path: Path) -> None:
    """1. Through a daemon: everything is there, and served on. 2. Again: all is there already. 3. Without a daemon,
    from both holders. 4. A file in the way is reported, kept, and replaced with --overwrite alone."""
    async with running(tmp_path, 2) as story:
        wanted = await share_folder(story)
        count = SMALL_COUNT + 2
        control, none, downloader = story.peers[1].control, tmp_path / "none.sock", story.peers[1].share_dir
        ended = await minga(story, control, "get", "set/")
        assert (ended.code, ended.err) == (0, "")
        assert ended.out.startswith(f"{count} files fetched: ")
        assert digests(downloader / "set") == wanted

        async def held_by_both() -> bool:
            return len(await story.holders("set/0/0003")) == 2 == len(await story.holders("set/large.bin"))

        await eventually(held_by_both, "the second peer is a holder")
        ended = await minga(story, control, "get", "set/")
        assert (ended.code, ended.out.partition(":")[0]) == (0, f"0 files fetched, {count} already there")

        out = tmp_path / "out" / "set"
        ended = await minga(story, none, "get", "set/", "-o", f"{out.parent}/")
        assert (ended.code, ended.err) == (0, "")
        assert " from 2 peers" in ended.out
        assert digests(out) == wanted
        assert [path for path in out.rglob("*") if path.name.startswith(".")] == []

        (out / "1/0004").write_bytes(b"mine")
        ended = await minga(story, none, "get", "set/", "-o", f"{out.parent}/")
        assert ended.code == 4
        assert ended.out.startswith(f"0 files fetched, {count - 1} already there, 1 failed: ")
        assert "0004 is there already with another content" in ended.err
        assert (out / "1/0004").read_bytes() == b"mine"
        ended = await minga(story, none, "get", "set/", "-o", f"{out.parent}/", "--overwrite")
        assert ended.out.startswith(f"1 file fetched, {count - 1} already there: ")
        assert digests(out) == wanted


async def test_interrupted_and_killed_folders_go_on(tmp_path: Path) -> None:
    """1. Ctrl-C in the middle: what is there is whole. 2. The daemon is killed in the middle of the next try. 3. Once
    it is back, the same command completes the folder."""
    async with running(tmp_path, 2) as story:
        wanted = await share_folder(story, 900)
        downloader = story.peers[1]
        folder = downloader.share_dir / "set"
        ended = await minga(story, downloader.control, "get", "set/", interrupt_at=folder)
        assert ended.code in (0, 130)
        assert digests(folder).items() <= wanted.items()
        started = len(digests(folder))
        work = asyncio.create_task(minga(story, downloader.control, "get", "set/"))

        async def going_on() -> bool:
            return work.done() or len(digests(folder)) > started

        await eventually(going_on, "it goes on")
        downloader.kill()
        await downloader.process.wait()
        await work
        assert digests(folder).items() <= wanted.items()
        await downloader.restart()
        ended = await minga(story, downloader.control, "get", "set/")
        assert (ended.code, ended.err) == (0, "")
        assert digests(folder) == wanted
