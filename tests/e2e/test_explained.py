"""Limits and explanations through real processes: what a daemon keeps to, reports to its client, and logs."""

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest

from minga.control import ControlClient
from minga_engine.explanation import Phase

from .conftest import eventually, noise, running

pytestmark = pytest.mark.e2e

MIB = 1024 * 1024
RATE = 4 * MIB


def finished(log: Path) -> list[dict[str, Any]]:
    """The log lines of downloads that are done."""
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == "download_finished"]


async def test_a_limited_peer_keeps_to_its_limit_and_the_downloader_says_why_it_took_so_long(tmp_path: Path) -> None:
    """1. A peer that may send 4 MiB/s has a file. 2. Another fetches it.

    3. The time, what the daemon reports, and its log line agree on where the bytes came from.
    """
    flags = (f"--limit-up={RATE // MIB}MiB/s", "--log-format=json")
    async with running(tmp_path, 2, peer_flags=flags) as story:
        seed, downloader = story.peers
        data = noise(8 * MIB)
        await story.share(seed, "a.bin", data)
        began = time.monotonic()
        last = await story.download(downloader, "a.bin")
        # The burst, and what the last piece is larger than that.
        assert time.monotonic() - began >= (len(data) - MIB) / RATE - 0.5
        found = last.explanation
        assert found is not None
        assert [(source.peer_id, source.received_bytes) for source in found.sources] == [(seed.peer_id, len(data))]
        assert found.phase_seconds[Phase.FETCHING] > found.phase_seconds.get(Phase.FINISHING, 0.0)
        async with ControlClient(seed.control) as control:
            assert (await control.status()).limit_up_bytes_per_second == RATE

        log = story.net.directory / "logs" / f"{downloader.peer_id}.log"

        async def logged() -> bool:
            return bool(await asyncio.to_thread(finished, log))

        await eventually(logged, "the download is in the log")
        (line,) = await asyncio.to_thread(finished, log)
        assert (line["name"], line["size_bytes"]) == ("a.bin", len(data))
        assert line["bytes_by_source"] == {seed.peer_id: len(data)}
        assert line["ratio_to_bound"] == pytest.approx(found.ratio_to_bound, abs=0.01)
