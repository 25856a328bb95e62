"""A peer that is killed comes back: at once with its state, and within a lease without."""

import asyncio
import shutil
from pathlib import Path

import pytest

from .conftest import Story, eventually, running

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize(("state", "lease_seconds"), [("kept", 60), ("lost", 3)])
async def test_a_peer_that_was_killed_is_back(tmp_path: Path, state: str, lease_seconds: int) -> None:
    """With its state it takes its own lease over at once; without it that of before is another peer's, and ends."""
    flags = ("--lease-ttl", str(lease_seconds))
    async with running(tmp_path, peer_count=1, registry_flags=flags) as story:
        (peer,) = story.peers
        await story.share(peer, "file.bin", b"data")
        peer.kill()
        await peer.process.wait()
        if state == "lost":
            await asyncio.to_thread(shutil.rmtree, peer.share_dir / ".minga")
        await peer.restart()

        async def is_back() -> bool:
            return "table_pushed" in await _last_log(story) and await story.holders("file.bin") == {peer.peer_id}

        await eventually(is_back, "it is back")
        # On a slow machine the lease may be over before a peer without its state asks for it.
        assert state == "lost" or "peer_id_taken" not in await _last_log(story)


async def _last_log(story: Story) -> str:
    """What the peer has logged since it was last started."""
    log = await asyncio.to_thread((story.net.directory / "logs/peer-1.log").read_text)
    return log.rpartition("peer_started")[2]
