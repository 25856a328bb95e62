"""Replications that others ask for: bounded, and never at the cost of the owner's own downloads."""

import asyncio
from contextlib import aclosing

import pytest

from minga_core.errors import LimitExceededError, NoSourcesError
from minga_core.ids import Address, ContentId, PeerId
from minga_core.names import parse_name
from minga_engine.progress import DownloadPhase
from minga_engine.wire.messages import SourceAddress
from minga_peer.daemon import downloads as module

from .conftest import Network, TestPeer, eventually, noise
from .test_swarm_download import fetch

MIB = 1024 * 1024
NOBODY = SourceAddress(PeerId("nobody"), Address("127.0.0.1:1"))


async def replicate(peer: TestPeer, name: str, *sources: SourceAddress) -> None:
    """Has a peer copy a content that nobody has."""
    content_id = ContentId(bytes(31) + name.encode()[-1:])
    steps = peer.downloads.replicate(
        parse_name(name), content_id, list(sources or (NOBODY,)), overwrite=False, published_ns=1
    )
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
