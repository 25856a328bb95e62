"""What transfers count, series by series: by path and source, by what ended them, and only what is worth comparing."""

import asyncio
import shutil
from dataclasses import replace
from datetime import timedelta

import pytest

from minga_core.clock import SystemClock
from minga_core.errors import NoSourcesError, StorageError
from minga_engine.swarm.events import DropReason
from minga_runtime.rate_limit import Limits

from .conftest import Network, TestPeer, eventually, noise
from .test_faulty_sources import evil_peer
from .test_small_files import files, get, sharing
from .test_swarm_download import fetch
from .test_uploads import begin, lacking, manifest_of, raw_store, send_chunk, upload

MIB = 1024 * 1024
SENT, RECEIVED = "minga_peer_sent_bytes_total", "minga_peer_received_bytes_total"
DROPPED = "minga_peer_dropped_sources_total"


def by_source(peer: TestPeer, name: str) -> dict[str, float]:
    """Bytes by the kind of source."""
    kinds = ("complete", "partial") if name == SENT else ("complete", "partial", "upload")
    return {kind: found for kind in kinds if (found := peer.metric(name, source=kind))}


async def test_bytes_from_complete_holders_are_told_apart_by_both_ends(network: Network) -> None:
    """The sender's and the receiver's count."""
    seed, downloader = await network.peer("seed"), await network.peer("downloader")
    network.directory.holds(await seed.shares("file.bin", noise(3 * MIB)), seed.source)
    await fetch(downloader, "file.bin")
    await eventually(lambda: by_source(seed, SENT) == {"complete": 3 * MIB}, "the sender has counted")
    assert by_source(downloader, RECEIVED) == {"complete": 3 * MIB}


async def test_bytes_from_partial_holders_too(network: Network) -> None:
    """The only source has an upload of which three chunks have come."""
    data = noise(2 * MIB)
    manifest = manifest_of(data)
    seed, half, downloader = await network.peer("seed"), await network.peer("half"), await network.peer("downloader")
    row = await seed.shares("file.bin", data)
    network.directory.holds(row, replace(half.source, complete=False))
    async with raw_store(half) as call:
        await begin(call, "file.bin", manifest)
        await lacking(call, manifest)
        for index in range(3):
            await send_chunk(call, manifest, data, index)
        await eventually(lambda: len(half.store.held(row.key.content_id) or ()) == 3, "three chunks are held")
        size_bytes = 3 * manifest.geometry.chunk_size_bytes
        assert by_source(half, RECEIVED) == {"upload": size_bytes}
        following = asyncio.create_task(fetch(downloader, "file.bin"))
        await eventually(lambda: by_source(downloader, RECEIVED) == {"partial": size_bytes}, "the downloader has them")
        await eventually(lambda: by_source(half, SENT) == {"partial": size_bytes}, "the sender has counted")
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
    await eventually(
        lambda: downloader.metric("minga_peer_downloads_total", outcome="cancelled") == 1, "it was cancelled"
    )


async def test_small_files_count_as_well(network: Network) -> None:
    """Many at once, and each of them as a download."""
    seed, downloader = await network.peer("seed"), await network.peer("downloader")
    data = files(20)
    await sharing(network, [seed], data)
    await get(downloader, list(data))
    assert by_source(seed, SENT) == by_source(downloader, RECEIVED) == {"complete": 20_000}
    assert downloader.metric("minga_peer_downloads_total", outcome="done") == 20


async def test_uploads_are_told_apart(network: Network) -> None:
    """What is stored for somebody."""
    peer = await network.peer("peer")
    await upload(peer, "in/file.bin", noise(3 * MIB))
    assert by_source(peer, RECEIVED) == {"upload": 3 * MIB}


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        ("not held", DropReason.NOT_HELD),
        ("stops in the middle", DropReason.REQUEST_LOST),
        ("stalls in the middle", DropReason.NO_PROGRESS),
        ("flips a bit", DropReason.WRONG_CHUNK),
    ],
)
async def test_sources_are_dropped_by_reason(network: Network, behaviour: str, reason: DropReason) -> None:
    """The label is the reason's name, in the way of metrics."""
    network.config = replace(network.config, stall_seconds=0.5)
    seed, downloader = await network.peer("seed"), await network.peer("downloader")
    data = noise(MIB)
    row = await seed.shares("file.bin", data)
    async with evil_peer(data, await seed.store.manifest(row.key.content_id), behaviour) as (evil, _):
        network.directory.holds(row, evil)
        with pytest.raises(NoSourcesError):
            await fetch(downloader, "file.bin", source_wait=timedelta(seconds=0.6))
    assert downloader.metric(DROPPED, reason=reason.name.lower()) >= 1
    assert downloader.metric("minga_peer_downloads_total", outcome="failed") == 1


async def test_every_reason_has_its_series_from_the_start(network: Network) -> None:
    """At 0."""
    peer = await network.peer("peer")
    assert {peer.metric(DROPPED, reason=why.name.lower()) for why in DropReason} == {0}


async def test_a_disk_that_fails_is_told_from_one_that_is_full(network: Network) -> None:
    """The folder of parts has been taken away, and something else stands in its place."""
    seed, downloader = await network.peer("seed"), await network.peer("downloader")
    network.directory.holds(await seed.shares("file.bin", noise(MIB)), seed.source)
    parts = downloader.root / ".minga/parts"
    shutil.rmtree(parts)
    parts.write_bytes(b"")
    with pytest.raises(StorageError):
        await fetch(downloader, "file.bin")
    assert downloader.metric("minga_peer_disk_errors_total", reason="other") == 1
    assert downloader.metric("minga_peer_disk_errors_total", reason="no_space") == 0


async def test_only_downloads_that_last_are_compared_with_their_best_second(network: Network) -> None:
    """1. One that is over in a moment has none. 2. One of more than a second is near it: the own limit is its bound."""
    seed, quick = await network.peer("seed"), await network.peer("quick")
    network.directory.holds(await seed.shares("file.bin", noise(5 * MIB)), seed.source)
    done = await fetch(quick, "file.bin")
    assert done.explanation is not None
    assert done.explanation.ratio_to_bound is not None
    assert quick.metric("minga_peer_transfer_bound_ratio_count") == 0
    network.limits = Limits.of(0, 2 * MIB, SystemClock())
    await fetch(slow := await network.peer("slow"), "file.bin")
    assert slow.metric("minga_peer_transfer_bound_ratio_count") == 1
    assert 1 <= slow.metric("minga_peer_transfer_bound_ratio_sum") < 3
