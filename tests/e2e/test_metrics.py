"""Every metric of every part exists from the start, as docs/metrics.md says, and moves when its thing happens.

Here over whole processes and one day of theirs. Each metric by itself is moved in `test_metrics.py` of its part, which
fails when there is one that is not.
"""

import asyncio
import re
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from minga_cli.localnet import LocalService
from minga_core.errors import NameTakenError
from tests.e2e.conftest import LIMIT_SECONDS, Story, eventually, noise, running
from tests.support.exposition import documented

_METRICS_ADDRESS = re.compile(r"metrics_address=(\S+)")
_FLAGS = ("--metrics-listen", "127.0.0.1:0")
_REGISTRY_FLAGS = (*_FLAGS, "--reap-interval", "0.5")
"""Leases are counted when the dead are removed."""
_PEER_FLAGS = (*_FLAGS, "--limit-up", "2MB/s", "--images", "docker.io")
"""A download lasts for more than a second, so that there is a best one to compare it with."""

Samples = dict[str, float]
"""Each series with its labels as the exposition writes them, and its value."""


def samples_of(text: str) -> Samples:
    """A scrape."""
    return {
        sample.name + "".join(f"|{label}={value}" for label, value in sorted(sample.labels.items()) if label != "le"): (
            sample.value
        )
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if not sample.name.endswith("_bucket")
    }


class Scrapes:
    """The endpoints of a network."""

    def __init__(self, story: Story) -> None:
        self._story = story

    def _of(self, service: LocalService, log: str) -> str:
        found = _METRICS_ADDRESS.findall((self._story.net.directory / "logs" / f"{log}.log").read_text())
        assert found, f"{log} does not tell where its metrics are"
        return f"http://{found[-1]}/metrics"

    async def registry(self) -> Samples:
        return await self._scrape(self._of(self._story.net.registry, "registry"))

    async def locator(self) -> Samples:
        return await self._scrape(f"{self._story.net.locator_url}/metrics")

    async def peer(self, index: int) -> Samples:
        return await self._scrape(self._of(self._story.peers[index], f"peer-{index + 1}"))

    async def _scrape(self, url: str) -> Samples:
        def read() -> str:
            with urlopen(url, timeout=10) as answer:
                text: str = answer.read().decode()
                return text

        return samples_of(await asyncio.to_thread(read))


def is_exposed(name: str, samples: Samples) -> bool:
    """Whether a scrape has any series of a metric."""
    return any(key.split("|")[0] in (name, f"{name}_count") for key in samples)


async def test_every_metric_is_there_from_the_start_and_moves(tmp_path: Path) -> None:
    """1. what a scrape shows is what is documented; 2. files are shared, looked for, fetched, uploaded, removed, and a
    peer dies; 3. what belongs to that has moved."""
    async with running(tmp_path, 3, registry_flags=_REGISTRY_FLAGS, peer_flags=_PEER_FLAGS) as story:
        scrapes = Scrapes(story)
        first = {"registry": await scrapes.registry(), "locator": await scrapes.locator()}
        first["peer"] = await scrapes.peer(0)
        for part, samples in first.items():
            missing = {name for name in documented(part) if not is_exposed(name, samples)}
            # Nobody has called a peer yet, and the reaper has not counted.
            assert missing <= {"minga_peer_rpc_duration_seconds", "minga_registry_leases"}
            exposed = {re.sub(r"_(count|sum)$", "", key.split("|")[0]) for key in samples}
            assert {name for name in exposed if name.startswith("minga_")} <= documented(part)
            assert "process_resident_memory_bytes" in samples

        await work(story, tmp_path)
        await expect_registry(scrapes, first["registry"])
        await passes(lambda: expect_locator(scrapes, first["locator"]))
        await passes(lambda: expect_peers(scrapes))
        await expect_outage(story, scrapes)


async def passes(check: Callable[[], Awaitable[None]]) -> None:
    """Returns once the check does: a series moves after the end of what it counts. Fails with its last error."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while True:
        try:
            return await check()
        except (AssertionError, KeyError):
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(0.1)


async def work(story: Story, tmp_path: Path) -> None:
    """What a network does all day."""
    giver, downloader, third = story.peers
    await story.share(giver, "big.bin", noise(3_000_000))
    await story.share(giver, "small.txt", b"small")
    await story.download(downloader, "big.bin")
    await story.download(downloader, "big.bin")
    await story.share(downloader, "taken", b"old")
    await story.share(giver, "taken", b"newer")
    with pytest.raises(NameTakenError):
        await story.download(downloader, "taken")
    assert await story.version("nobody.bin") is None
    upload = tmp_path / "upload"
    upload.write_bytes(noise(300_000))
    words = ("--locator", story.net.locator_url, "--control", str(tmp_path / "none.sock"), "put", str(upload))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", "minga_cli", *words, "--as", "upload.bin", stdout=asyncio.subprocess.DEVNULL
    )
    assert await process.wait() == 0
    (giver.share_dir / "small.txt").unlink()
    third.kill()

    async def gone() -> bool:
        return third.peer_id not in await story.live_peers() and not await story.holders("small.txt")

    await eventually(gone, "the killed peer and the removed file are gone")


async def expect_registry(scrapes: Scrapes, before: Samples) -> None:
    """Of the registry."""

    async def holds() -> bool:
        now = await scrapes.registry()
        return (
            now["minga_registry_heartbeats_total|action=ok"] > before["minga_registry_heartbeats_total|action=ok"]
            and now["minga_registry_table_pushes_total|outcome=committed"] > 3
            and now["minga_registry_table_push_duration_seconds_count"] > 3
            and now["minga_registry_active_pushes"] == 0
            and now["minga_registry_pushed_rows_total|kind=put"] >= 3
            and now["minga_registry_pushed_rows_total|kind=remove"] >= 1
            and now["minga_registry_leases|state=alive"] == 2
            and now["minga_registry_store_up"] == 1
            and now["minga_registry_redis_duration_seconds_count|operation=push_commit|outcome=ok"] > 3
            and now["minga_registry_rpc_duration_seconds_count|code=OK|method=Register"] >= 3
            and now["minga_registry_build_info|version=0.2.0"] == 1
        )

    await eventually(holds, "the registry's metrics have moved")


async def expect_locator(scrapes: Scrapes, before: Samples) -> None:
    """Of the locator."""
    now = await scrapes.locator()
    moved = {
        "minga_locator_lookups_total|result=hit",
        "minga_locator_lookups_total|result=miss",
        "minga_locator_cache_lookups_total|result=miss",
        "minga_locator_placements_total",
        "minga_locator_redis_duration_seconds_count|operation=find|outcome=ok",
    }
    assert {key for key in moved if not now[key] > before[key]} == set()
    assert now["minga_locator_request_duration_seconds_count|route=/v1/files/{name:any}|status=2xx"] > 0
    assert now["minga_locator_request_duration_seconds_count|route=/v1/files/{name:any}|status=4xx"] > 0
    assert now["minga_locator_build_info|version=0.2.0"] == 1

    async def alone() -> bool:
        return (await scrapes.locator())["minga_locator_active_requests"] == 1

    await eventually(alone, "the scrape itself is the only request")


async def expect_peers(scrapes: Scrapes) -> None:
    """Of the giver and the downloader."""
    giver, downloader = await scrapes.peer(0), await scrapes.peer(1)
    assert giver["minga_peer_sent_bytes_total|source=complete"] >= 3_000_000
    assert giver["minga_peer_hash_cache_lookups_total|result=miss"] >= 2
    assert giver["minga_peer_hashed_bytes_total"] >= 3_000_005
    assert giver["minga_peer_shared_files"] >= 1
    assert giver["minga_peer_shared_bytes"] >= 3_000_000
    assert giver["minga_peer_capacity_bytes"] >= giver["minga_peer_free_bytes"] > 0
    assert giver["minga_peer_pending_hashes"] == 0
    assert giver["minga_peer_active_serves"] == giver["minga_peer_waiting_serves"] == 0
    assert giver["minga_peer_registered"] == 1
    assert giver["minga_peer_build_info|version=0.2.0"] == 1
    assert giver["minga_peer_rpc_duration_seconds_count|code=OK|method=GetManifest"] >= 1
    assert downloader["minga_peer_received_bytes_total|source=complete"] == 3_000_000
    assert downloader["minga_peer_downloads_total|outcome=done"] == 1
    assert downloader["minga_peer_downloads_total|outcome=already_present"] == 1
    assert downloader["minga_peer_downloads_total|outcome=failed"] == 1
    assert downloader["minga_peer_download_duration_seconds_count"] == 1
    assert downloader["minga_peer_transfer_bound_ratio_count"] == 1
    assert downloader["minga_peer_transfer_bound_ratio_sum"] >= 1
    assert downloader["minga_peer_active_downloads"] == 0
    uploaded = [peer["minga_peer_received_bytes_total|source=upload"] for peer in (giver, downloader)]
    # Unless the third had it, which is dead.
    assert sum(uploaded) in (0, 300_000)


async def expect_outage(story: Story, scrapes: Scrapes) -> None:
    """The store goes, and with it what needs it."""
    story.net.redis.kill()

    async def holds() -> bool:
        await story.version("big.bin")
        registry, locator = await scrapes.registry(), await scrapes.locator()
        return (
            registry["minga_registry_store_up"] == 0
            and registry["minga_registry_redis_duration_seconds_count|operation=ping|outcome=unavailable"] > 0
            and locator["minga_locator_lookups_total|result=unavailable"] > 0
        )

    await eventually(holds, "metrics tell that the store is away")
