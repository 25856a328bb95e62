"""Downloads between real servers in one process."""

import asyncio
from contextlib import aclosing

from minga_core.names import parse_name
from minga_engine.progress import DownloadPhase, Progress
from minga_engine.transfer.download import DownloadRequest

from .conftest import Network, TestPeer, noise

MIB = 1024 * 1024


async def fetch(peer: TestPeer, name: str, **options: object) -> Progress:
    """Downloads a file; the last progress."""
    last: Progress | None = None
    async with aclosing(peer.downloads.follow(DownloadRequest(parse_name(name), **options))) as steps:  # type: ignore[arg-type]
        async for progress, _ in steps:
            last = progress
    assert last is not None
    return last


async def test_a_file_arrives_whole_from_one_peer(network: Network) -> None:
    """Bytes, name and row are those of the source."""
    seed, downloader = await network.peer("seed"), await network.peer("downloader")
    data = noise(5 * MIB + 17)
    network.directory.holds(await seed.shares("dir/file.bin", data), seed.source)
    done = await fetch(downloader, "dir/file.bin")
    assert done.phase is DownloadPhase.DONE
    assert (downloader.root / "dir/file.bin").read_bytes() == data
    row = downloader.store.find(parse_name("dir/file.bin"))
    assert row is not None
    assert row.key.content_id == done.content_id
    assert not list((downloader.root / ".minga/parts").iterdir())


async def test_an_empty_file_arrives(network: Network) -> None:
    """No chunks, and yet a file."""
    seed, downloader = await network.peer("seed"), await network.peer("downloader")
    network.directory.holds(await seed.shares("empty", b""), seed.source)
    assert (await fetch(downloader, "empty")).phase is DownloadPhase.DONE
    assert (downloader.root / "empty").read_bytes() == b""


async def test_all_sources_are_used(network: Network) -> None:
    """A file that three peers have comes from all three."""
    data = noise(16 * MIB)
    for number in range(3):
        seed = await network.peer(f"seed{number}")
        network.directory.holds(await seed.shares("file.bin", data), seed.source)
    downloader = await network.peer("downloader")
    done = await fetch(downloader, "file.bin")
    assert set(done.received_by_source) == {"seed0", "seed1", "seed2"}
    assert sum(done.received_by_source.values()) == len(data)


async def test_what_is_there_already_is_not_fetched(network: Network) -> None:
    """The second download moves no byte."""
    seed, downloader = await network.peer("seed"), await network.peer("downloader")
    network.directory.holds(await seed.shares("file.bin", noise(MIB)), seed.source)
    await fetch(downloader, "file.bin")
    sent = seed.metrics.sent_payload_bytes
    assert (await fetch(downloader, "file.bin")).phase is DownloadPhase.ALREADY_PRESENT
    assert seed.metrics.sent_payload_bytes == sent


async def test_two_who_ask_for_the_same_file_share_one_download(network: Network) -> None:
    """The bytes come once."""
    seed, downloader = await network.peer("seed"), await network.peer("downloader")
    data = noise(8 * MIB)
    network.directory.holds(await seed.shares("file.bin", data), seed.source)
    await asyncio.gather(fetch(downloader, "file.bin"), fetch(downloader, "file.bin"))
    assert seed.metrics.sent_payload_bytes == len(data)
