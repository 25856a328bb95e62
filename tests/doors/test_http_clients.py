"""The gateway, used by the programs that people have: each one as it is, against whole processes."""

import asyncio
import io
import itertools
import os
import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.doors.networks import FILES, Doors, doors, gateway_of
from tests.e2e.conftest import eventually

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


async def put_film(running: Doors, folder: Path) -> str:
    """Share a film from the first peer; its URL at the second one."""
    source = ("-f", "lavfi", "-i", "testsrc2=duration=20:size=320x240:rate=25")
    await run("ffmpeg", "-v", "error", *source, "-c:v", "mpeg4", "-b:v", "4M", "film.mp4", cwd=folder)
    os.link(folder / "film.mp4", running.first.share_dir / "film.mp4")
    url = f"{running.url}/files/film.mp4"

    async def found() -> bool:
        return "200" in await run("curl", "-sSI", url, cwd=folder)

    await eventually(found, "the film can be found")
    return url


async def test_ffmpeg_seeks(running: Doors, tmp_path: Path) -> None:
    """A player reads a film's end first (its index), and then the middle."""
    url = await put_film(running, tmp_path)
    entries = ("-show_entries", "format=duration", "-of", "csv=p=0")
    printed = await run("ffprobe", "-v", "error", *entries, url, cwd=tmp_path)
    assert float(printed) == pytest.approx(20, abs=0.5)
    await run("ffmpeg", "-v", "error", "-ss", "15", "-i", url, "-frames:v", "1", "frame.png", cwd=tmp_path)
    assert (tmp_path / "frame.png").stat().st_size > 0


def documented() -> list[str]:
    """The commands of docs/gateway.md."""
    text = (Path(__file__).parents[2] / "docs" / "gateway.md").read_text()
    return re.search(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE)[1].splitlines()  # type: ignore[index]


async def test_the_documented_commands_work(running: Doors, tmp_path: Path) -> None:
    """One after the other, as somebody who reads them would try them; ffprobe in place of the player."""
    await put_film(running, tmp_path)
    (tmp_path / "model.bin").write_bytes(LARGE[:1_000_000])
    lines = documented()
    assert len(lines) >= 7
    for line in lines:
        line = line.replace("http://127.0.0.1:50080", running.url).replace("ffplay", "ffprobe -v error")
        await run("bash", "-ec", line, cwd=tmp_path)
    assert (tmp_path / "large.bin").read_bytes() == LARGE
    assert (tmp_path / running.url.removeprefix("http://") / "files/data/large.bin").read_bytes() == LARGE
    for peer in (running.first, running.second):
        assert (peer.share_dir / "models/model.bin").read_bytes() == LARGE[:1_000_000]


def in_use(pid: int) -> tuple[int, int, int]:
    """Descriptors and threads of a process, and its memory in KiB."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return len(list(Path(f"/proc/{pid}/fd").iterdir())), int(status["Threads"]), int(status["VmRSS"].split()[0])


FEW = 8
"""Threads of pools begin when so many are busy at once, each perhaps with a descriptor. What one request in a hundred
left behind would be a hundred."""


@pytest.mark.timeout(300)
async def test_ten_thousand_requests_leave_nothing_behind(running: Doors) -> None:
    """Over eight kept connections, of every kind: about as many descriptors and threads as after the first thousand and
    no memory worth speaking of."""
    async with httpx.AsyncClient(base_url=running.url) as client:
        answer = await client.get("/files/data/small.txt")
    content = f"/contents/{answer.headers['etag'][1:-1]}"
    cheap = [
        f"GET {content}",
        f"HEAD {content}",
        "GET /transfers",
        f"PATCH {content}",
        f"GET {content}\r\nRange: bytes=5-9",
        f"GET {content}\r\nRange: bytes=500-",
        f"GET {content}\r\nIf-None-Match: *",
        "HEAD /uploads/none\r\nTus-Resumable: 1.0.0",
    ]
    asks_the_locator = ["GET /files/data/?format=json", "GET /files/data/small.txt", "GET /files/none"]

    async def ask(count: int) -> None:
        reader, writer = await asyncio.open_connection(*address)
        for kind in itertools.islice(itertools.cycle(cheap * 12 + asks_the_locator), count):
            line, *more = kind.split("\r\n")
            writer.write("\r\n".join([f"{line} HTTP/1.1", "Host: localhost", *more, "", ""]).encode())
            head = await reader.readuntil(b"\r\n\r\n")
            assert not head.startswith(b"HTTP/1.1 5"), head
            length = re.search(rb"content-length: (\d+)", head.lower())
            if length and not kind.startswith("HEAD") and b" 304 " not in head:
                await reader.readexactly(int(length[1]))
        writer.close()
        await writer.wait_closed()

    async def all_of(count: int) -> tuple[int, int, int]:
        await asyncio.gather(*(ask(count // 8) for _ in range(8)))
        await asyncio.sleep(0.5)  # connections that have ended are closed
        return await asyncio.to_thread(in_use, running.second.pid)

    host, _, port = running.url.removeprefix("http://").rpartition(":")
    address = (host, int(port))
    descriptors, threads, memory = await all_of(1_000)
    after = await all_of(10_000)
    assert after[2] - memory < 6 * 1024

    async def are_gone() -> bool:
        now = await asyncio.to_thread(in_use, running.second.pid)
        return now[0] <= descriptors + FEW and now[1] <= threads + FEW

    await eventually(are_gone, "descriptors and threads are about as many as before")


async def test_a_client_of_tus_goes_on_after_the_peer_was_killed(running: Doors) -> None:
    """tuspy, which knows nothing of Minga."""
    client = pytest.importorskip("tusclient.client", reason="no tuspy: make doors installs it")

    def uploader(base: str, **more: Any) -> Any:
        name = {"filename": "up/tus.bin", "replicas": "2"}
        tus = client.TusClient(f"{base}/uploads")
        return tus.uploader(file_stream=io.BytesIO(LARGE), chunk_size=1_000_000, metadata=name, **more)

    first = uploader(running.url)
    for _ in range(5):
        await asyncio.to_thread(first.upload_chunk)
    await running.second.restart()
    url = first.url.replace(running.url, again := await gateway_of(running.second))
    second = await asyncio.to_thread(uploader, again, url=url)
    assert second.offset == 5_000_000
    await asyncio.to_thread(second.upload)
    for peer in (running.first, running.second):
        assert (peer.share_dir / "up/tus.bin").read_bytes() == LARGE
