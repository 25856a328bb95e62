"""Real downloads: their explanations, and that limits hold."""

import time

import pytest

from minga_core.names import parse_name
from minga_engine.explanation import Explanation, Phase
from minga_engine.transfer.download import DownloadRequest
from minga_runtime.rate_limit import BURST_SECONDS, Limits, RateLimit

from .conftest import Network, TestPeer, noise

MIB = 1024 * 1024


async def downloaded(peer: TestPeer, name: str) -> Explanation:
    """Downloads a file to its end; its explanation then."""
    found: Explanation | None = None
    async for progress, _ in peer.downloads.follow(DownloadRequest(parse_name(name))):
        found = progress.explanation or found
    assert found is not None
    return found


async def test_a_download_tells_who_sent_how_much_and_how(network: Network) -> None:
    """By source, by path, and by phase; all bytes are accounted for."""
    seeds = [await network.peer("seed-1"), await network.peer("seed-2")]
    data = noise(8 * MIB + 7)
    for seed in seeds:
        network.directory.holds(await seed.shares("a.bin", data), seed.source)
    downloader = await network.peer("downloader")
    found = await downloaded(downloader, "a.bin")
    assert (found.size_bytes, found.resumed_bytes) == (len(data), 0)
    assert sum(source.received_bytes for source in found.sources) == len(data)
    assert {source.peer_id for source in found.sources} <= {"seed-1", "seed-2"}
    assert found.phase_seconds[Phase.FETCHING] > 0
    assert sum(found.phase_seconds.values()) == pytest.approx(found.seconds, abs=0.001)
    assert found.ratio_to_bound is not None


async def test_a_download_keeps_to_its_limit(network: Network) -> None:
    """Whatever the sources could send."""
    seed = await network.peer("seed")
    data = noise(3 * MIB)
    network.directory.holds(await seed.shares("a.bin", data), seed.source)
    rate = 2 * MIB
    network.limits = Limits(RateLimit(None), RateLimit(rate))
    downloader = await network.peer("downloader")
    began = time.monotonic()
    found = await downloaded(downloader, "a.bin")
    # What came last is paid for by what comes next: a chunk on each of the requests that go at once.
    assert time.monotonic() - began >= (len(data) - 4 * 256 * 1024) / rate - BURST_SECONDS
    assert found.limit_rate == rate


async def test_a_source_keeps_to_its_limit(network: Network) -> None:
    """All its downloaders together."""
    rate = 4 * MIB
    network.limits = Limits(RateLimit(rate), RateLimit(None))
    seed = await network.peer("seed")
    data = noise(3 * MIB)
    network.directory.holds(await seed.shares("a.bin", data), seed.source)
    network.limits = Limits.of(0, 0)
    downloader = await network.peer("downloader")
    began = time.monotonic()
    await downloaded(downloader, "a.bin")
    assert time.monotonic() - began >= len(data) / rate - BURST_SECONDS - 512 * 1024 / rate
