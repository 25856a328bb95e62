"""What must not happen when parts of a running network are stopped in order, as an upgrade does."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from minga_core.errors import MingaError
from minga_engine.progress import DownloadPhase

from .conftest import eventually, noise, running

pytestmark = pytest.mark.e2e
MIB = 1024 * 1024


async def test_the_only_source_of_a_download_sees_it_through_before_it_stops(tmp_path: Path) -> None:
    """SIGTERM in the middle: it leaves, no new downloader is sent to it, and a download from it gets the rest."""
    async with running(tmp_path, 2, peer_flags=["--limit-up", "16MB/s", "--stop-grace", "30"]) as story:
        source, downloader = story.peers
        data = noise(48 * MIB)
        await story.share(source, "only.bin", data)
        downloading = asyncio.create_task(story.download(downloader, "only.bin"))

        async def begun() -> bool:
            return await story.held_bytes(downloader) >= MIB

        await eventually(begun, "some of it is there")
        os.kill(source.pid, signal.SIGTERM)

        async def gone() -> bool:
            return await story.live_peers() == {"peer-2"}

        await eventually(gone, "it has left")
        assert not downloading.done(), "the download was over before the source had left: nothing was shown"
        done = await downloading
        assert done.phase is DownloadPhase.DONE
        assert (downloader.share_dir / "only.bin").read_bytes() == data
        await source.process.wait()
        with pytest.raises(MingaError, match="ended with exit code 0"):
            source.process.check()
