"""A bit flips on a disk, size and times stay: whatever way bytes leave a peer, they are verified."""

import asyncio
import errno
import os
from datetime import timedelta
from typing import Any

import pytest

from minga_core.errors import NoSourcesError
from minga_core.ids import ContentId
from minga_core.names import Name
from minga_engine.parts.part_files import PartTarget
from minga_engine.progress import DownloadPhase, Progress
from minga_engine.transfer.download import DownloadRequest
from minga_engine.transfer.swarming import SwarmDownload
from minga_engine.wire.messages import SourceAddress
from services.peer.tests.share.rot import rot

from .conftest import Network, TestPeer, eventually, noise
from .test_http_server import connected
from .test_swarm_download import fetch

MIB = 1024 * 1024
DATA = noise(3 * MIB)


async def holders(network: Network, data: bytes = DATA) -> tuple[TestPeer, TestPeer, ContentId]:
    """Two peers that share a.bin."""
    first, second = await network.peer("first"), await network.peer("second")
    row = await first.shares("a.bin", data)
    network.directory.holds(row, first.source)
    network.directory.holds(await second.shares("a.bin", data), second.source)
    return first, second, row.key.content_id


def damaged(peer: TestPeer) -> list[str]:
    return [each.file.name for each in peer.store.folder.damaged]


async def test_a_holder_whose_chunks_are_refused_takes_its_file_out(network: Network) -> None:
    """The download goes on from the other one; the next downloader is not sent there."""
    first, second, content = await holders(network)
    downloader = await network.peer("downloader")
    bad = await rot(first.store, "a.bin", 2 * MIB)
    network.directory.peers[content] = [first.source]
    with pytest.raises(NoSourcesError):
        await fetch(downloader, "a.bin", source_wait=timedelta(seconds=0.3))
    await eventually(lambda: damaged(first) == ["a.bin"], "the holder has looked")
    assert first.store.table.rows() == []
    assert (first.root / "a.bin").read_bytes() == bad
    assert first.metric("minga_peer_rechecked_chunks_total", result="wrong") >= 1
    network.directory.peers[content] = [second.source]
    await fetch(downloader, "a.bin")
    assert (downloader.root / "a.bin").read_bytes() == DATA


async def test_small_files_that_rot_are_reported_too(network: Network) -> None:
    """They come many in a call, from one holder; what is rotten comes from another one."""
    first, second, content = await holders(network, b"small")
    downloader = await network.peer("downloader")
    await rot(first.store, "a.bin")
    network.directory.peers[content] = [first.source]
    assert [done async for done in downloader.downloads.follow_small([Name("a.bin")])] == []
    await eventually(lambda: damaged(first) == ["a.bin"], "the holder has looked")
    network.directory.peers[content] = [second.source]
    assert [done async for done in downloader.downloads.follow_small([Name("a.bin")])]
    assert (downloader.root / "a.bin").read_bytes() == b"small"


async def test_a_report_of_a_good_chunk_changes_nothing(network: Network) -> None:
    """The receiver's memory may be wrong, or it lies."""
    first, _, content = await holders(network)
    async with connected(first) as (reader, writer):
        for index, code in ((0, "204"), (0, "204"), (12, "400")):
            writer.write(f"POST /v1/contents/{content}/chunks/{index}/wrong HTTP/1.1\r\n\r\n".encode())
            assert code in (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()[0]
    await eventually(lambda: first.metric("minga_peer_rechecked_chunks_total", result="good") == 1, "it is read once")
    assert first.store.held(content) is not None


@pytest.mark.parametrize("data", [DATA, b"small"], ids=["large", "small"])
async def test_a_local_copy_that_rots_is_not_delivered_and_is_fetched_anew(network: Network, data: bytes) -> None:
    """It is not "already there"; the good bytes replace the rotten ones of the same content."""
    first, second, content = await holders(network, data)
    await rot(first.store, "a.bin")
    network.directory.peers[content] = [second.source]
    if data == DATA:
        done = await fetch(first, "a.bin")
        assert done.received_by_source
    else:
        assert [one async for one in first.downloads.follow_small([Name("a.bin")])] == []
        await fetch(first, "a.bin")
    assert (first.root / "a.bin").read_bytes() == data
    assert damaged(first) == []
    assert first.store.find(Name("a.bin")) is not None


async def test_reading_a_local_copy_is_reported_meanwhile(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client gives up a call that says nothing for a minute; a large file takes longer."""
    monkeypatch.setattr("minga_engine.transfer.download.REPORT_SECONDS", 0.01)
    first, _, content = await holders(network)
    seen: list[Progress] = []
    verify, reported = first.store.verifier.verify, asyncio.Event()

    async def slow(*arguments: Any) -> Any:
        async with asyncio.timeout(20):
            await reported.wait()
        return await verify(*arguments)

    def on_progress(progress: Progress) -> None:
        seen.append(progress)
        if len([one for one in seen if one.content_id == content]) == 3:
            reported.set()

    monkeypatch.setattr(first.store.verifier, "verify", slow)
    await first.downloads._downloader.download(DownloadRequest(Name("a.bin")), on_progress)
    assert [one.phase for one in seen[-2:]] == [DownloadPhase.LOCATING, DownloadPhase.ALREADY_PRESENT]


async def test_a_rotten_file_that_was_changed_since_is_not_replaced(network: Network) -> None:
    """Its owner's bytes stay, whatever they are."""
    first, second, content = await holders(network)
    network.directory.peers[content] = [second.source]
    await rot(first.store, "a.bin")
    assert await first.store.present(Name("a.bin"), content) is None
    target = PartTarget(Name("a.bin"), await second.store.manifest(content), content, 1)
    part = await first.store.begin_part(target, overwrite=False)
    (first.root / "a.bin").write_bytes(b"mine")
    for index in range(12):
        await part.write_chunk(index, DATA[index * 262144 : (index + 1) * 262144])
    with pytest.raises(Exception, match="is there already"):
        await part.commit()
    assert (first.root / "a.bin").read_bytes() == b"mine"
    await part.discard()


async def test_a_local_copy_under_another_name_that_rots_is_not_copied(network: Network) -> None:
    """What is wrong or unreadable of it comes from others."""
    first, second, content = await holders(network)
    await rot(first.store, "a.bin", 2 * MIB)
    network.directory.located[Name("b.bin")] = network.directory.located[Name("a.bin")]
    network.directory.peers[content] = [second.source]
    await fetch(first, "b.bin")
    assert (first.root / "b.bin").read_bytes() == DATA
    assert damaged(first) == ["a.bin"]


async def test_a_local_copy_that_cannot_be_read_does_not_stop_a_download(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EIO of the file that is copied from: all comes from others."""
    first, second, content = await holders(network)
    network.directory.located[Name("b.bin")] = network.directory.located[Name("a.bin")]
    network.directory.peers[content] = [second.source]

    def fails(*_: Any) -> Any:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("minga_engine.parts.part_files.copy_range", fails)
    await fetch(first, "b.bin")
    assert (first.root / "b.bin").read_bytes() == DATA


async def test_a_part_that_rots_is_resumed_with_good_bytes(network: Network) -> None:
    """Size and time of its data are as before."""
    first, _, content = await holders(network)
    downloader = await network.peer("downloader")
    target = PartTarget(Name("a.bin"), await first.store.manifest(content), content, 1)
    part = await downloader.store.begin_part(target, overwrite=False)
    await part.write_chunk(1, DATA[262144 : 2 * 262144])
    await part.close()
    status = part.files.data_path.stat()
    with part.files.data_path.open("r+b") as data:
        data.seek(262144)
        data.write(b"rot")
    os.utime(part.files.data_path, ns=(status.st_atime_ns, status.st_mtime_ns))
    await fetch(downloader, "a.bin")
    assert (downloader.root / "a.bin").read_bytes() == DATA


async def test_a_chunk_of_a_part_that_rots_while_it_is_written_is_fetched_again(network: Network) -> None:
    """The download ends with good bytes all the same."""
    first, _, content = await holders(network)
    downloader = await network.peer("downloader")
    manifest = await first.store.manifest(content)
    part = await downloader.store.begin_part(PartTarget(Name("a.bin"), manifest, content, 1), overwrite=False)
    await part.write_chunk(0, DATA[:262144])
    with part.files.data_path.open("r+b") as data:
        data.write(b"rot")
    async with connected(downloader) as (reader, writer):
        writer.write(f"POST /v1/contents/{content}/chunks/0/wrong HTTP/1.1\r\n\r\n".encode())
        assert b"204" in await reader.readuntil(b"\r\n")
    await eventually(lambda: downloader.store.table.rows() == [], "nothing is announced")
    assert not part.held
    await part.close()
    await fetch(downloader, "a.bin")
    assert (downloader.root / "a.bin").read_bytes() == DATA


async def test_a_chunk_that_rots_before_the_download_ends_is_fetched_once_more(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was verified and written, and found wrong while the others came."""
    await holders(network)
    downloader = await network.peer("downloader")
    run, rotted = SwarmDownload.run, []

    async def run_and_rot(swarm: SwarmDownload, sources: list[SourceAddress]) -> None:
        await run(swarm, sources)
        if not rotted:
            (part,) = downloader.store.inventory.parts.values()
            with part.files.data_path.open("r+b") as data:
                data.write(b"rot")
            rotted.extend(await part.verify(range(12)))

    monkeypatch.setattr(SwarmDownload, "run", run_and_rot)
    await fetch(downloader, "a.bin")
    assert rotted == [0]
    assert (downloader.root / "a.bin").read_bytes() == DATA


async def test_a_rotten_file_is_no_replica(network: Network) -> None:
    """A peer that is asked to hold a file, and has it rotten, fetches it."""
    first, second, content = await holders(network)
    await rot(first.store, "a.bin")
    steps = first.downloads.replicate(Name("a.bin"), content, [second.source], overwrite=False)
    rows = [row async for _, row in steps]
    assert rows[-1] is not None
    assert (first.root / "a.bin").read_bytes() == DATA
