"""What must happen when parts of a running network go wrong: real processes, real kills."""

import asyncio
import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from minga import AsyncClient
from minga_cli.localprocess import module_command
from minga_core.errors import AlreadyRunningError, MingaError
from minga_core.names import parse_name
from minga_engine.progress import DownloadPhase
from minga_locator.cache import MAX_AGE_SECONDS

from .conftest import LEASE, LIMIT_SECONDS, eventually, noise, running

pytestmark = pytest.mark.e2e
MIB = 1024 * 1024
LONG_LEASE = ("--lease-ttl", "120")
"""It does not end within a test."""


async def test_a_killed_peer_is_out_of_every_answer_when_its_lease_ends(tmp_path: Path) -> None:
    """No heartbeat, no lease, no mention: neither among the peers nor as a holder."""
    async with running(tmp_path, 2) as story:
        victim, other = story.peers
        await story.share(victim, "both.bin", noise(MIB))
        await story.download(other, "both.bin")
        await eventually(lambda: _are(story.holders("both.bin"), {"peer-1", "peer-2"}), "both hold it")
        victim.kill()
        killed_at = last_named_at = time.monotonic()

        async def vanished() -> bool:
            nonlocal last_named_at
            asked_at = time.monotonic()
            named = await story.live_peers() | await story.holders("both.bin")
            if "peer-1" in named:
                last_named_at = asked_at
            return named == {"peer-2"}

        await eventually(vanished, "it vanishes")
        # A heartbeat may have been on its way.
        assert last_named_at - killed_at <= LEASE.total_seconds() + MAX_AGE_SECONDS + 0.5


async def test_a_stopped_peer_is_out_of_every_answer_at_once(tmp_path: Path) -> None:
    """SIGTERM: the lease is given up, the exit code is 0."""
    async with running(tmp_path, 2, registry_flags=LONG_LEASE) as story:
        leaver = story.peers[0]
        await story.share(leaver, "file.bin", noise(1000))
        os.kill(leaver.pid, signal.SIGTERM)
        await eventually(lambda: _are(story.live_peers(), {"peer-2"}), "it has left, long before its lease ends")
        await leaver.process.wait()
        with pytest.raises(MingaError, match="ended with exit code 0"):
            leaver.process.check()
        await eventually(lambda: _are(story.holders("file.bin"), set()), "the locator's cache forgets it")


async def test_a_download_survives_the_death_of_a_source(tmp_path: Path) -> None:
    """kill -9 of one of two sources in the middle: the file arrives whole from the other."""
    async with running(tmp_path, 3, peer_flags=("--limit-up", "24MB/s")) as story:
        first, second, downloader = story.peers
        data = noise(48 * MIB)
        await story.share(first, "big.bin", data)
        await story.download(second, "big.bin")
        await eventually(lambda: _are(story.holders("big.bin"), {"peer-1", "peer-2"}), "both hold it")
        downloading = asyncio.create_task(story.download(downloader, "big.bin"))
        await eventually(lambda: _at_least(story.held_bytes(downloader), 4 * MIB), "some of it is there")
        second.kill()
        assert (await downloading).phase is DownloadPhase.DONE
        assert (downloader.share_dir / "big.bin").read_bytes() == data


async def test_a_killed_downloader_resumes_without_fetching_a_chunk_twice(tmp_path: Path) -> None:
    """What was flushed before kill -9 is not fetched again, and the file is right."""
    # What has come is saved each second.
    async with running(tmp_path, 2, peer_flags=("--limit-up", "12MB/s")) as story:
        seed, downloader = story.peers
        data = noise(32 * MIB)
        await story.share(seed, "big.bin", data)
        downloading = asyncio.create_task(story.download(downloader, "big.bin"))
        await eventually(lambda: asyncio.to_thread(_has_flushed, downloader.share_dir), "some of it is flushed")
        downloader.kill()
        await asyncio.gather(downloading, return_exceptions=True)
        assert not (downloader.share_dir / "big.bin").exists()
        await downloader.restart()
        done = await story.download(downloader, "big.bin")
        assert done.phase is DownloadPhase.DONE
        assert done.resumed_bytes > 0
        assert sum(done.received_by_source.values()) == len(data) - done.resumed_bytes
        assert (downloader.share_dir / "big.bin").read_bytes() == data


async def test_an_emptied_store_is_whole_again_within_a_heartbeat_or_two(tmp_path: Path) -> None:
    """Losing all of Redis loses nothing: the peers say everything again."""
    async with running(tmp_path, 2) as story:
        for number in range(20):
            (story.peers[number % 2].share_dir / f"file{number}").write_bytes(noise(100))
        everything = {f"file{number}" for number in range(20)}
        await eventually(lambda: _are(story.names(), everything), "all are listed")
        await story.net.flush_redis()
        # Heartbeats are a third of a lease apart.
        await eventually(lambda: _are(story.names(), everything), "all are listed again", 3 * LEASE.total_seconds())


async def test_a_killed_store_registry_or_locator_fails_no_running_download(tmp_path: Path) -> None:
    """Transfers need none of them once they run; afterwards everything is found again."""
    async with running(tmp_path, 2, peer_flags=("--limit-up", "16MB/s")) as story:
        seed, downloader = story.peers
        data = noise(32 * MIB)
        await story.share(seed, "big.bin", data)
        downloading = asyncio.create_task(story.download(downloader, "big.bin"))
        await eventually(lambda: _at_least(story.held_bytes(downloader), MIB), "it runs")
        for part in (story.net.redis, story.net.registry, story.net.locator):
            part.kill()
        assert (await downloading).phase is DownloadPhase.DONE
        assert (downloader.share_dir / "big.bin").read_bytes() == data
        for part in (story.net.redis, story.net.registry, story.net.locator):
            await part.restart()
        await eventually(lambda: _are(story.holders("big.bin"), {"peer-1", "peer-2"}), "both are found again")


async def test_of_two_copies_of_a_peer_the_older_stops(tmp_path: Path) -> None:
    """The later start, with the same lease token, takes the lease over at once; the other ends with a clear error."""
    async with running(tmp_path, 1) as story:
        older = story.peers[0]
        shutil.copytree(older.share_dir, tmp_path / "twin", ignore=shutil.ignore_patterns("index.*"))
        twin = await asyncio.create_subprocess_exec(
            *module_command("minga_cli", "--locator", story.net.locator_url, "--control", str(tmp_path / "twin.sock")),
            *("peer", "--share", str(tmp_path / "twin"), "--registry", story.net.registry_address),
            *("--peer-id", older.peer_id, "--listen", "127.0.0.1:0"),
            stdout=asyncio.subprocess.DEVNULL,
        )
        try:
            async with asyncio.timeout(LIMIT_SECONDS):
                await older.process.wait()
            with pytest.raises(AlreadyRunningError, match="another process is peer-1"):
                older.process.check()
            await eventually(lambda: _are(story.live_peers(), {"peer-1"}), "the later one is listed")
        finally:
            twin.terminate()
            await twin.wait()


async def test_an_upload_is_held_by_as_many_as_asked_for_and_found_by_everyone(tmp_path: Path) -> None:
    """Uploaded once, copied between peers; nobody that has the name is chosen; a second put moves nothing."""
    async with running(tmp_path, 3) as story:
        source = tmp_path / "report.pdf"
        data = noise(10 * MIB)
        source.write_bytes(data)
        async with AsyncClient(locator=story.net.locator_url) as client:
            result = await client.put(source, "r/report.pdf", replicas=2)
            assert len(result.peers) == 2
            assert await story.holders("r/report.pdf") == set(result.peers)
            for peer in story.peers:
                held = peer.share_dir / "r/report.pdf"
                assert held.exists() == (peer.peer_id in result.peers)
                assert not held.exists() or held.read_bytes() == data
            again = await client.put(source, parse_name("r/report.pdf"), replicas=2, on_progress=lambda _: None)
            assert again.already_there
            target = tmp_path / "out.pdf"
            await client.get(parse_name("r/report.pdf"), target, on_progress=lambda _: None)
            assert target.read_bytes() == data
            assert not (tmp_path / ".minga-parts").exists()


async def test_a_changed_file_shows_up_changed_elsewhere(tmp_path: Path) -> None:
    """The new content is the default version, and only it has holders."""
    async with running(tmp_path, 2) as story:
        owner, reader = story.peers
        before = await story.share(owner, "file.txt", b"before")
        after = await story.share(owner, "file.txt", b"after!!")
        assert before != after
        await story.download(reader, "file.txt")
        assert (reader.share_dir / "file.txt").read_bytes() == b"after!!"


async def test_a_removed_file_is_listed_nowhere(tmp_path: Path) -> None:
    """Deleted from the only shared folder that had it: not found, not listed."""
    async with running(tmp_path, 1) as story:
        owner = story.peers[0]
        await story.share(owner, "dir/file.txt", b"x")
        (owner.share_dir / "dir/file.txt").unlink()
        await eventually(lambda: _are(story.names(), set()), "it is gone from the catalogue")
        await eventually(lambda: _are(story.version("dir/file.txt"), None), "the locator's cache forgets it")


async def _are(found: object, wanted: object) -> bool:
    return await found == wanted  # type: ignore[misc, no-any-return]


async def _at_least(found: object, wanted: int) -> bool:
    return await found >= wanted  # type: ignore[misc, no-any-return]


def _has_flushed(share_dir: Path) -> bool:
    """A bitmap is written after the data that it claims are synced."""
    return any(share_dir.rglob("*.held"))


async def test_a_put_replaces_what_a_killed_peer_held(tmp_path: Path) -> None:
    """Its lease lives, so it is named as a holder; the put names it, and all who ask get what was put."""
    async with running(tmp_path, 3, registry_flags=LONG_LEASE) as story:
        dead, *living = story.peers
        (tmp_path / "out").write_bytes(noise(100_000))
        async with AsyncClient(locator=story.net.locator_url, standalone=True) as client:
            old = await client.put(tmp_path / "out", "model", replicas=3)
            assert old.missing_replicas == 0
            (tmp_path / "out").write_bytes(noise(100_000))
            dead.process.kill()
            put = await client.put(tmp_path / "out", "model", replicas=2, overwrite=True)
        assert set(put.peers) == {peer.peer_id for peer in living}
        assert list(put.failed_peers) == [dead.peer_id]
        version = await story.version("model")
        assert version is not None
        assert version.content_id == put.content_id
