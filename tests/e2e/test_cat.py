"""`minga cat` as a process: its first bytes come before the last ones are on this machine."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from minga.control import ControlClient
from minga_cli.localnet import LocalPeer
from minga_cli.localprocess import module_command

from .conftest import Story, noise, running

pytestmark = pytest.mark.e2e
LARGE, SMALL = noise(8 * 1024 * 1024), noise(700_000)
SLOW = ("--limit-up", "1MB/s")


@asynccontextmanager
async def cat(
    story: Story, name: str, temporary: Path, control: Path
) -> AsyncIterator[tuple[asyncio.subprocess.Process, int]]:
    """`minga cat NAME` with a temporary folder of its own, and the end of the pipe that it writes to; killed at the
    end, when nothing of it is in that folder."""
    command = module_command("minga_cli", "--locator", story.net.locator_url, "--control", str(control), "cat", name)
    output, write_end = os.pipe()
    process = await asyncio.create_subprocess_exec(
        *command, stdout=write_end, stderr=asyncio.subprocess.PIPE, env=os.environ | {"TMPDIR": str(temporary)}
    )
    os.close(write_end)
    try:
        yield process, output
        assert (await process.communicate())[1] == b""
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
    assert os.listdir(temporary) == []


async def test_a_file_is_written_while_it_arrives(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Through the daemon and without one: 1. `minga cat NAME | head -c 10` has its bytes before half of the file was
    sent, ends at once, says nothing and leaves nothing behind; 2. a reader that is slow gets all of it."""
    temporary = tmp_path_factory.mktemp("temporary")
    async with running(tmp_path, 2, peer_flags=SLOW) as story:
        source, here = story.peers
        await story.share(source, "large", LARGE)
        await story.share(source, "small", SMALL)
        for control in (here.control, tmp_path / "none.sock"):
            before = await sent_bytes(source)
            async with cat(story, "large", temporary, control) as (process, output):
                assert await asyncio.to_thread(os.read, output, 10) == LARGE[:10]
                assert await sent_bytes(source) - before < len(LARGE) // 2
                os.close(output)
            assert process.returncode == 141
            assert await sent_bytes(source) - before < len(LARGE)
            async with cat(story, "small", temporary, control) as (process, output):
                assert await asyncio.to_thread(_read_slowly, output) == SMALL
            assert process.returncode == 0


async def sent_bytes(peer: LocalPeer) -> int:
    """What it has sent to others since its start."""
    async with ControlClient(peer.control) as control:
        return (await control.status()).sent_bytes


def _read_slowly(output: int) -> bytes:
    """All of it, a pause after each of the first pieces; closes it."""
    pieces = []
    with open(output, "rb", buffering=0) as pipe:
        while piece := pipe.read(64 * 1024):
            pieces.append(piece)
            if len(pieces) < 10:
                time.sleep(0.01)
    return b"".join(pieces)
