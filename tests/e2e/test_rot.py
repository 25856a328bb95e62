"""A disk that flips a bit while nothing shows it: found, not shared, and replaced, with real processes."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from minga import AsyncClient
from minga.errors import DaemonUnavailableError
from minga_cli.localnet import LocalPeer
from minga_engine.progress import DownloadPhase

from .conftest import Story, eventually, noise, running

pytestmark = pytest.mark.e2e
MIB = 1024 * 1024


async def test_a_rotten_file_is_found_by_verify_and_replaced_by_get(tmp_path: Path) -> None:
    """1. Two hold it. 2. One rots. 3. `verify` names it, and the locator that peer no longer. 4. `get` replaces it."""
    async with running(tmp_path, 2) as story:
        rotten, sound = story.peers
        data = noise(3 * MIB)
        await story.share(rotten, "dir/a.bin", data)
        await story.download(sound, "dir/a.bin")
        await _rot(rotten, "dir/a.bin", 2 * MIB)
        async with AsyncClient(locator=story.net.locator_url, control=rotten.control) as client:
            await eventually(lambda: _announces(client, 1), "it is shared as if it were sound")
            steps = [step async for step in client.verify("dir/")]
            assert [(bad.name, bad.unreadable) for step in steps for bad in step.bad_files] == [("dir/a.bin", False)]
            assert [condition.kind for condition in (await client.status()).conditions] == ["damaged"]
            await eventually(lambda: _hold(story, {"peer-2"}), "nobody is sent there")
            assert (await client.get("dir/a.bin")).phase is DownloadPhase.DONE
            assert (await client.status()).conditions == ()
        assert (rotten.share_dir / "dir/a.bin").read_bytes() == data
        await eventually(lambda: _hold(story, {"peer-1", "peer-2"}), "both hold it again")


async def _announces(client: AsyncClient, file_count: int) -> bool:
    try:
        status = await client.status()
    except DaemonUnavailableError:
        return False
    return status.file_count == file_count and status.announced_revision == status.table_revision


async def _hold(story: Story, expected: set[str]) -> bool:
    return await story.holders("dir/a.bin") == expected


async def _rot(peer: LocalPeer, name: str, offset: int) -> None:
    """Flip a bit; the index is made to know the file with the times that it has then."""
    peer.kill()
    path = peer.share_dir / name
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))
    status = path.stat()
    with closing(sqlite3.connect(peer.share_dir / ".minga/index.sqlite")) as database, database:
        times = (status.st_mtime_ns, status.st_ctime_ns, name)
        assert database.execute("UPDATE files SET mtime = ?, ctime = ? WHERE name = ?", times).rowcount == 1
    await peer.restart()
