"""What is kept of a file, through every door that files go through: real processes, each with an umask of its own."""

import asyncio
import os
import stat
from pathlib import Path

import pytest

from minga_cli.localprocess import module_command
from minga_core.attributes import FileAttributes
from minga_engine.parts.files import Fingerprint

from .conftest import Story, eventually, noise, running

pytestmark = pytest.mark.e2e

MIB = 1024 * 1024
MODIFIED_NS = 1_234_567_890_123_456_789


def make(path: Path, data: bytes, *, executable: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    path.chmod(0o755 if executable else 0o644)
    os.utime(path, ns=(MODIFIED_NS, MODIFIED_NS))


def modes(folder: Path) -> dict[str, int]:
    """The modes of the files below a folder, all of which have the time that is to be kept."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    assert {path.stat().st_mtime_ns for path in files} == {MODIFIED_NS}
    return {str(path.relative_to(folder)): stat.S_IMODE(path.stat().st_mode) for path in files}


async def minga(story: Story, control: Path, umask: int, *arguments: str) -> None:
    """Runs the command to a good end."""
    command = module_command("minga_cli", "--locator", story.net.locator_url, "--control", str(control), *arguments)
    process = await asyncio.create_subprocess_exec(*command, cwd=story.net.directory, umask=umask)
    assert await process.wait() == 0


async def test_attributes_and_holes_are_kept_through_every_door(tmp_path: Path) -> None:
    """A large file, small ones and a sparse one, some of them executable: 1. through a daemon; 2. copied from it; 3.
    without a daemon; 4. uploaded, and replicated."""
    async with running(tmp_path, 2) as story:
        source, share = story.peers[0].share_dir / "set", story.peers[1].share_dir
        make(source / "large", noise(3 * MIB), executable=True)
        make(source / "small", noise(100), executable=True)
        make(source / "plain", noise(200), executable=False)
        make(source / "sparse", bytes(3 * MIB) + noise(7), executable=False)

        async def listed() -> bool:
            return len(await story.names()) == 4

        await eventually(listed, "all are listed")
        version = await story.version("set/large")
        assert version is not None
        assert (version.modified_ns, version.executable) == (MODIFIED_NS, True)
        await minga(story, story.peers[1].control, 0o077, "get", "set/")
        kept = {"large": 0o755, "plain": 0o644, "small": 0o755, "sparse": 0o644}
        assert modes(share / "set") == kept
        own = {"large": 0o750, "plain": 0o640, "small": 0o750, "sparse": 0o640}
        for control, out in ((story.peers[1].control, tmp_path / "copied"), (tmp_path / "none", tmp_path / "alone")):
            await minga(story, control, 0o027, "get", "set/", "-o", f"{out}/")
            assert modes(out / "set") == own
        for folder in (share / "set", tmp_path / "copied/set", tmp_path / "alone/set"):
            assert (folder / "sparse").stat().st_blocks * 512 < MIB
        make(tmp_path / "tool", noise(MIB), executable=True)
        await minga(story, tmp_path / "none", 0o022, "put", str(tmp_path / "tool"), "--replicas", "2")
        for peer in story.peers:
            stored = Fingerprint.of((peer.share_dir / "tool").stat())
            assert stored.attributes == FileAttributes(MODIFIED_NS, executable=True)
