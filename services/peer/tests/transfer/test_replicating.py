"""Replications that others ask for: bounded, and never at the cost of the owner's own downloads."""

import asyncio
from contextlib import aclosing
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from minga_core.chunks import ChunkSet
from minga_core.clock import SystemClock
from minga_core.errors import LimitExceededError, NoSourcesError
from minga_core.ids import Address, ContentId, PeerId
from minga_core.names import parse_name
from minga_engine.progress import DownloadPhase
from minga_engine.transfer import download
from minga_engine.transfer.options import TransferOptions
from minga_engine.transfer.swarming import MAX_NAMED_SOURCES, SwarmDownload
from minga_engine.wire.messages import SourceAddress
from minga_peer.daemon import downloads as module

from .conftest import Network, TestPeer, eventually, noise
from .test_faulty_sources import evil_peer
from .test_swarm_download import fetch
from .test_uploads import manifest_of

MIB = 1024 * 1024
NOBODY = SourceAddress(PeerId("nobody"), Address("127.0.0.1:1"))


async def replicate(peer: TestPeer, name: str, *sources: SourceAddress) -> None:
    """Has a peer copy a content that nobody has."""
    content_id = ContentId(bytes(31) + name.encode()[-1:])
    steps = peer.downloads.replicate(parse_name(name), content_id, list(sources or (NOBODY,)), overwrite=False)
    async with aclosing(steps):
        async for _ in steps:
            pass


async def test_b5_a_replication_without_a_reachable_source_ends(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And frees its place."""
    monkeypatch.setattr(module, "REPLICATION_IDLE_SECONDS", 0.5)
    peer = await network.peer("peer")
    with pytest.raises(NoSourcesError):
        await asyncio.wait_for(replicate(peer, "a"), 20)
    assert peer.downloads.jobs == []


async def test_b5_replications_leave_the_owner_its_downloads(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    """One too many is refused, and the owner still gets a file."""
    monkeypatch.setattr(module, "MAX_REPLICATIONS", 2)
    peer, seed = await network.peer("peer"), await network.peer("seed")
    network.directory.holds(await seed.shares("file.bin", noise(MIB)), seed.source)
    flood = [asyncio.create_task(replicate(peer, name)) for name in ("a", "b")]
    await eventually(lambda: len(peer.downloads.jobs) == 2, "two replications wait")
    with pytest.raises(LimitExceededError):
        await replicate(peer, "c")
    assert (await fetch(peer, "file.bin")).phase is DownloadPhase.DONE
    for task in flood:
        task.cancel()
    await asyncio.gather(*flood, return_exceptions=True)


async def test_a_named_source_is_dialled_a_few_times_and_then_no_more(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its address may be anybody's. gRPC would go on dialling it for half an hour after the last call, too."""
    monkeypatch.setattr(download, "RETRY_SECONDS", 0.05)
    peer = await network.peer("peer")
    dialled: list[float] = []

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        dialled.append(asyncio.get_running_loop().time())
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    victim = replace(NOBODY, address=Address(f"127.0.0.1:{server.sockets[0].getsockname()[1]}"))
    replicating = asyncio.create_task(replicate(peer, "a", victim))
    await eventually(lambda: len(dialled) == download.UNLISTED_TRIES, "it is dialled")
    await asyncio.sleep(1)
    assert len(dialled) == download.UNLISTED_TRIES
    replicating.cancel()
    await asyncio.gather(replicating, return_exceptions=True)
    server.close()


async def test_b9_a_wrong_address_for_an_honest_peer_is_not_held_against_it(network: Network) -> None:
    """Wrong bytes came from the address that somebody named; the directory knows another, which counts."""
    peer, seed = await network.peer("peer"), await network.peer("seed")
    row = await seed.shares("file.bin", noise(3 * MIB))
    network.directory.holds(row, seed.source)
    manifest = await seed.store.manifest(row.key.content_id)
    async with evil_peer(noise(3 * MIB), manifest, "flips a bit") as (evil, service), asyncio.timeout(20):
        steps = peer.downloads.replicate(
            row.key.name,
            row.key.content_id,
            [replace(evil, peer_id=seed.peer_id)],
            overwrite=False,
        )
        async for progress, _ in steps:
            last = progress
        assert service.asked > 0
    assert last.phase is DownloadPhase.DONE
    assert last.received_by_source == {seed.peer_id: 3 * MIB}


def test_b9_the_sources_that_peers_name_are_bounded() -> None:
    """Each costs time with every event of a download."""
    manifest = manifest_of(noise(MIB))
    target = SimpleNamespace(content_id=manifest.content_id)
    part = SimpleNamespace(manifest=manifest, target=target, held=ChunkSet(4))
    swarm = SwarmDownload(cast("Any", part), cast("Any", None), cast("Any", None), SystemClock(), TransferOptions())
    for number in range(4000):
        swarm.add_new_sources([SourceAddress(PeerId(f"peer{number}"), Address(f"10.0.0.1:{number + 1}"))])
    assert len(swarm._addresses) == MAX_NAMED_SOURCES
