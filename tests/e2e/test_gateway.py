"""The gateway of whole processes that are killed while it is used."""

import asyncio
from pathlib import Path

import httpx
import pytest

from minga.control import ControlClient
from minga_cli.localnet import LocalPeer
from minga_engine.wire.locator import LocatorClient

from .conftest import eventually, noise, running

pytestmark = pytest.mark.e2e

DATA = noise(1_000_000)
TUS = {"Tus-Resumable": "1.0.0"}
PATCH = "Tus-Resumable: 1.0.0\r\nContent-Type: application/offset+octet-stream\r\n"


async def gateway_of(peer: LocalPeer) -> str:
    async with ControlClient(peer.control) as control:
        return (await control.status()).gateway_url


async def is_announced(locator_url: str, url: str) -> bool:
    """Whether others learn that this is the gateway of a peer."""
    async with LocatorClient(locator_url) as locator:
        return url in [peer.gateway_url async for peer in locator.iter_peers()]


async def test_a_put_that_a_crash_ends_leaves_nothing_and_an_upload_goes_on(tmp_path: Path) -> None:
    """kill -9 in the middle of both: the body of the PUT is gone once the peer answers again, and of what may go on
    nothing that had come is lost. Others learn where the gateway is, and where it is after the restart."""
    async with running(tmp_path, 1, peer_flags=("--gateway", "0.0.0.0:0", "--open", "1")) as story:
        (peer,) = story.peers
        locator_url = story.net.locator_url
        assert await is_announced(locator_url, await gateway_of(peer))
        uploads = peer.share_dir / ".minga" / "uploads"
        host, _, port = (await gateway_of(peer)).removeprefix("http://").rpartition(":")
        _, writer = await asyncio.open_connection(host, int(port))
        half = f"Host: localhost\r\nContent-Length: {len(DATA)}\r\n\r\n".encode() + DATA[:100_000]
        writer.write(b"PUT /files/a HTTP/1.1\r\n" + half)
        async with httpx.AsyncClient(base_url=await gateway_of(peer), headers=TUS) as client:
            metadata = {"Upload-Length": str(len(DATA)), "Upload-Metadata": "filename Yg=="}
            location = (await client.post("/uploads", headers=metadata)).headers["location"]
        _, patching = await asyncio.open_connection(host, int(port))
        patching.write(f"PATCH {location} HTTP/1.1\r\nUpload-Offset: 0\r\n{PATCH}".encode() + half)

        async def are_kept() -> bool:
            return sorted(path.stat().st_size for path in uploads.iterdir() if path.suffix != ".json") == [100_000] * 2

        await eventually(are_kept, "both bodies are being kept")
        await peer.restart()
        for each in (writer, patching):
            each.transport.abort()
        url = await gateway_of(peer)
        await eventually(lambda: is_announced(locator_url, url), "others learn where it is now")
        async with httpx.AsyncClient(base_url=url, headers=TUS) as client:
            assert {path.name[:4] for path in uploads.iterdir()} == {"tus-"}
            assert (await client.put("/files/a", content=b"again")).status_code == 201
            offset = (await client.head(location)).headers["upload-offset"]
            assert offset == "100000"
            rest = {"Upload-Offset": offset, "Content-Type": "application/offset+octet-stream"}
            assert (await client.patch(location, headers=rest, content=DATA[100_000:])).status_code == 204
            assert list(uploads.iterdir()) == []
        assert (peer.share_dir / "a").read_bytes() == b"again"
        assert (peer.share_dir / "b").read_bytes() == DATA
