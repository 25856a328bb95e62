"""The gateway, used by the programs that people have: each one as it is, against whole processes."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.doors.networks import FILES, Doors, doors

pytestmark = pytest.mark.e2e

LARGE = FILES["data/large.bin"]


@pytest.fixture(name="running")
async def _running(tmp_path: Path) -> AsyncIterator[Doors]:
    async with doors(tmp_path) as found:
        yield found


async def run(program: str, *arguments: str, cwd: Path, code: int = 0) -> str:
    """What a program prints; skips the test where it is not installed."""
    if shutil.which(program) is None:
        pytest.skip(f"no {program}: make doors installs it")
    process = await asyncio.create_subprocess_exec(
        program, *arguments, cwd=cwd, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    async with asyncio.timeout(60):
        printed, _ = await process.communicate()
    assert process.returncode == code, printed.decode(errors="replace")
    return printed.decode(errors="replace")


async def test_curl_resumes(running: Doors, tmp_path: Path) -> None:
    """`curl -C -` goes on where a broken transfer ended, and again when there is nothing left."""
    (tmp_path / "large.bin").write_bytes(LARGE[:5_000_001])
    # With -f this curl calls the 416 of a file that it has whole an error, nginx's too.
    for options in ("-fsS", "-sS"):
        await run("curl", options, "-C", "-", "-O", f"{running.url}/files/data/large.bin", cwd=tmp_path)
        assert (tmp_path / "large.bin").read_bytes() == LARGE


async def test_curl_uploads_and_removes(running: Doors, tmp_path: Path) -> None:
    """What `curl -T` sends is on the network under its name; `-X DELETE` at the holder removes it."""
    (tmp_path / "up.bin").write_bytes(LARGE[:3_000_000])
    url = f"{running.url}/files/up/näme.bin?replicas=2".replace("ä", "%C3%A4")
    printed = await run("curl", "-fsS", "-T", "up.bin", url, cwd=tmp_path)
    assert '"missing_replicas": 0' in printed
    for peer in (running.first, running.second):
        assert (peer.share_dir / "up/näme.bin").read_bytes() == LARGE[:3_000_000]
    printed = await run("curl", "-sS", "-H", "If-None-Match: *", "-T", "up.bin", url, cwd=tmp_path)
    assert '"status": 412' in printed
    await run("curl", "-fsS", "-X", "DELETE", url, cwd=tmp_path)
    assert not (running.second.share_dir / "up/näme.bin").exists()
    assert list((running.second.share_dir / ".minga" / "uploads").iterdir()) == []


async def test_wget_resumes_and_fetches_what_is_newer(running: Doors, tmp_path: Path) -> None:
    """`wget -c` resumes; `wget -N` fetches nothing twice."""
    url = f"{running.url}/files/data/large.bin"
    (tmp_path / "large.bin").write_bytes(LARGE[:7_777_777])
    await run("wget", "-nv", "-c", url, cwd=tmp_path)
    assert (tmp_path / "large.bin").read_bytes() == LARGE
    (tmp_path / "large.bin").unlink()
    await run("wget", "-nv", "-N", url, cwd=tmp_path)
    inode = (tmp_path / "large.bin").stat().st_ino
    again = await run("wget", "-S", "-N", url, cwd=tmp_path)
    assert "304 Not Modified" in again
    assert (tmp_path / "large.bin").stat().st_ino == inode


async def test_wget_fetches_a_tree(running: Doors, tmp_path: Path) -> None:
    """`wget -r` follows the listings, whatever characters the names have."""
    url = f"{running.url}/files/data/"
    options = ("-nv", "-r", "-np", "-nH", "--cut-dirs=1", "--restrict-file-names=nocontrol", "--local-encoding=UTF-8")
    environment = ("env", "LC_ALL=C.UTF-8")
    await run(*environment, "wget", *options, url, cwd=tmp_path)
    for name, data in FILES.items():
        assert (tmp_path / name).read_bytes() == data, name


async def test_aria2_fetches_by_16_connections(running: Doors, tmp_path: Path) -> None:
    """Each of 16 connections asks for ranges of the same file, which is fetched once."""
    options = ("-x16", "-s16", "-k1M", "--console-log-level=warn", "--summary-interval=0")
    await run("aria2c", *options, f"{running.url}/files/data/large.bin", cwd=tmp_path)
    assert (tmp_path / "large.bin").read_bytes() == LARGE


async def test_ffmpeg_seeks(running: Doors, tmp_path: Path) -> None:
    """A player reads a film's end first (its index), and then the middle."""
    film = running.first.share_dir / "film.mp4"
    made = tmp_path / "film.mp4"
    source = ("-f", "lavfi", "-i", "testsrc2=duration=20:size=320x240:rate=25")
    await run("ffmpeg", "-v", "error", *source, "-c:v", "mpeg4", "-b:v", "4M", str(made), cwd=tmp_path)
    os.link(made, film)
    url = f"{running.url}/files/film.mp4"
    for _ in range(100):
        if shutil.which("curl") and "200" in await run("curl", "-sSI", url, cwd=tmp_path):
            break
        await asyncio.sleep(0.1)
    entries = ("-show_entries", "format=duration", "-of", "csv=p=0")
    printed = await run("ffprobe", "-v", "error", *entries, url, cwd=tmp_path)
    assert float(printed) == pytest.approx(20, abs=0.5)
    await run("ffmpeg", "-v", "error", "-ss", "15", "-i", url, "-frames:v", "1", "frame.png", cwd=tmp_path)
    assert (tmp_path / "frame.png").stat().st_size > 0
