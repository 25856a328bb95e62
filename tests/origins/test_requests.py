"""The requests of containerd 2.x, which Debian does not have, replayed from its source (core/remotes/docker)."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import httpx
import pytest

from tests.origins.networks import Mirrors, mirrors
from tests.origins.registry import MANIFEST, Image, docker_registry, layer_of

pytestmark = pytest.mark.e2e

MIB = 1024 * 1024
LAYER = layer_of(a=os.urandom(24 * MIB))
AGENT = {"User-Agent": "containerd/2.3.0"}
ACCEPT = {"Accept": MANIFEST}
ENCODINGS = {"Accept-Encoding": "zstd;q=1.0, gzip;q=0.8, deflate;q=0.5"}


@pytest.fixture(name="pulled")
async def _pulled(tmp_path: Path) -> AsyncIterator[tuple[Mirrors, Image]]:
    """Two peers, and an image that neither has."""
    async with docker_registry(tmp_path / "registry") as registry:
        image = registry.push("lib/x", "1", [LAYER, b""])
        async with mirrors(tmp_path / "net", registry, 2) as found:
            yield found, image


@asynccontextmanager
async def containerd_of(found: Mirrors, peer: int) -> AsyncIterator[httpx.AsyncClient]:
    """A client that asks one of the peers as containerd does."""
    query = {"ns": found.registry.name}
    async with httpx.AsyncClient(
        base_url=found.urls[peer], params=query, headers=AGENT | ENCODINGS, timeout=60
    ) as client:
        yield client


async def test_parallel_ranges_that_are_closed_early_fetch_once(pulled: tuple[Mirrors, Image]) -> None:
    """As with containerd's concurrent fetch of layers: open-ended ranges, each closed once its share is there."""
    found, image = pulled
    path, share = f"/v2/lib/x/blobs/{image.layers[0]}", len(LAYER) // 4

    async def part(client: httpx.AsyncClient, start: int) -> bytes:
        data = b""
        async with client.stream("GET", path, headers={"Range": f"bytes={start}-"}) as answer:
            assert answer.status_code == 206
            assert answer.headers["content-range"] == f"bytes {start}-{len(LAYER) - 1}/{len(LAYER)}"
            assert "content-encoding" not in answer.headers
            async for piece in answer.aiter_raw():
                data += piece
                if len(data) >= share:
                    break
        return data[:share]

    for peer in (0, 1):
        async with containerd_of(found, peer) as client:
            parts = await asyncio.gather(*(part(client, start) for start in range(0, share * 4, share)))
        assert b"".join(parts) == LAYER[: share * 4]
    assert found.registry.sent_bytes(image.layers[0]) <= 1.05 * len(LAYER)


async def test_a_head_never_waits_for_the_body(pulled: tuple[Mirrors, Image]) -> None:
    """FetchByDigest asks HEAD of blobs, then of manifests; nothing is fetched for it."""
    found, image = pulled
    async with containerd_of(found, 0) as client:
        for digest, size in ((image.layers[0], len(LAYER)), (image.layers[1], 0)):
            answer = await client.head(f"/v2/lib/x/blobs/{digest}")
            assert (answer.status_code, answer.headers["content-length"]) == (200, str(size))
            assert answer.headers["docker-content-digest"] == digest
        assert (await client.head(f"/v2/lib/x/blobs/{image.digest}")).status_code in (200, 404)
    assert found.registry.sent(image.layers[0]) == []


async def test_an_empty_layer(pulled: tuple[Mirrors, Image]) -> None:
    """containerd 1.6 refuses it itself; others take a short answer for the whole."""
    found, image = pulled
    for peer in (0, 1):
        async with containerd_of(found, peer) as client:
            answer = await client.get(f"/v2/lib/x/blobs/{image.layers[1]}")
            assert (answer.status_code, answer.headers["content-length"], answer.content) == (200, "0", b"")


async def test_the_rest_of_what_broke_off(pulled: tuple[Mirrors, Image]) -> None:
    """The next peer goes on at the byte where the first one died."""
    found, image = pulled
    path = f"/v2/lib/x/blobs/{image.layers[0]}"
    async with containerd_of(found, 0) as client, client.stream("GET", path) as answer:
        received = b""
        with suppress(httpx.HTTPError):
            async for piece in answer.aiter_raw():
                received += piece
                if len(received) >= MIB and found.peers[0].process.running:
                    found.peers[0].kill()
    assert len(received) < len(LAYER)
    async with containerd_of(found, 1) as client:
        answer = await client.get(path, headers={"Range": f"bytes={len(received)}-"})
    assert answer.status_code == 206
    assert received + answer.content == LAYER


async def test_in_a_secure_network_images_need_no_grant_and_files_do(tmp_path: Path) -> None:
    """containerd has none to show. The peers share what they fetched as in any network."""
    async with docker_registry(tmp_path / "registry") as registry:
        image = registry.push("lib/x", "1", [LAYER[:MIB]])
        async with mirrors(tmp_path / "net", registry, 2, secure=True) as found:
            for peer in (0, 1):
                async with containerd_of(found, peer) as client:
                    assert (await client.get(f"/v2/lib/x/manifests/{image.digest}")).status_code == 200
                    assert (await client.get(f"/v2/lib/x/blobs/{image.layers[0]}")).content == LAYER[:MIB]
                    assert (await client.get("/files/")).status_code == 401
                    assert (await client.get(f"/files/origins/sha256/{image.layers[0][7:]}")).status_code == 401
        await registry.sent_once(*image.layers)


async def test_a_pull_of_what_is_not_there_costs_little(pulled: tuple[Mirrors, Image]) -> None:
    """A tag, and a digest that nobody has: no more than a tenth of a second each, also while no locator answers. The
    fastest of some counts: others work on this machine."""
    found, _ = pulled
    absent = f"/v2/lib/x/manifests/sha256:{'0' * 64}"
    async with httpx.AsyncClient(base_url=found.registry.url, headers=ACCEPT) as registry:
        directly = await fastest(registry, "/v2/lib/x/manifests/1", 200), await fastest(registry, absent, 404)
    async with containerd_of(found, 0) as client:
        client.headers.update(ACCEPT)
        tag, miss = await fastest(client, "/v2/lib/x/manifests/1", 200), await fastest(client, absent, 404)
        assert tag - directly[0] < 0.1
        assert miss - directly[1] < 0.1
        os.kill(found.net.locator.pid, signal.SIGSTOP)
        try:
            assert await fastest(client, absent, 404, count=5) < 1
        finally:
            os.kill(found.net.locator.pid, signal.SIGCONT)


async def fastest(client: httpx.AsyncClient, path: str, status: int, count: int = 15) -> float:
    """Seconds that a HEAD takes."""
    taken = []
    for _ in range(count):
        began = time.monotonic()
        assert (await client.head(path)).status_code == status
        taken.append(time.monotonic() - began)
    return min(taken)
