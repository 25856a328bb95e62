"""Files that an origin does not let everybody have: who gets them is for the origin to say, each time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from prometheus_client import CollectorRegistry

from minga_core.clock import SystemClock
from minga_core.errors import FileNotFoundInDirectoryError, MingaError, UnavailableError
from minga_core.names import Name
from minga_peer.gateway._metrics import GatewayMetrics
from minga_peer.gateway.fetching import Fetching
from minga_peer.gateway.recent import Recent
from minga_peer.images._metrics import ImageMetrics
from minga_peer.images.mirror import GIVEN_UP_SECONDS, ImageMirror
from minga_peer.images.registries import Registries, parse_registries
from minga_peer.images.upstream import ImageUpstream
from minga_peer.origins.naming import OriginNames
from minga_peer.origins.origin_file import PRIVATE_PREFIX, OriginFile, name_of
from minga_peer.origins.upstream import OriginRefusedError
from services.peer.tests.gateway.support import Served, served
from tests.support.origin import Origin, origin, sha256

from .conftest import Network, TestPeer, noise

MIB = 1024 * 1024
ALICE, BOB, EVE = ({"Authorization": f"Bearer {who}"} for who in ("alice", "bob", "eve"))
DATA = noise(3 * MIB)


@pytest.fixture
async def place(network: Network) -> AsyncIterator[Origin]:
    """An origin that demands credentials of two owners."""
    async with origin() as running:
        running.faults.admits = ("Bearer alice", "Bearer bob")
        network.allowed.append(running.url)
        yield running


async def read(peer: TestPeer, file: OriginFile) -> bytes:
    data = bytearray()
    async with peer.origins.open(file) as reader:
        while piece := await reader.read(len(data), MIB):
            data += piece
    return bytes(data)


@asynccontextmanager
async def doors(peer: TestPeer, place: Origin) -> AsyncIterator[tuple[httpx.AsyncClient, Served]]:
    """The peer's gateway on the loopback, with `/v2/` and `/fetch/`."""
    series, now = CollectorRegistry(), SystemClock().monotonic
    registries = Registries(parse_registries(place.url))
    asking, given_up = ImageUpstream(peer.origins.upstream, now), Recent(now, GIVEN_UP_SECONDS)
    mirror = ImageMirror(
        registries, asking, peer.origins, given_up, None, ImageMetrics(series), lambda source, count: None
    )
    fetching = Fetching(peer.origins, OriginNames(), GatewayMetrics(series), for_owner=False)
    files = {name_of(OriginFile(f"{place.url}/v2/a/blobs/{sha256(DATA)}", sha256(DATA), headers=ALICE)): DATA}
    async with (
        served(files, mirrors={"v2": mirror}, readers={"fetch": fetching.get}) as gateway,
        httpx.AsyncClient(base_url=gateway.url) as client,
    ):
        yield client, gateway


@pytest.mark.parametrize("by_digest", [True, False])
async def test_what_credentials_brought_is_handed_out_to_nobody_without(
    network: Network, place: Origin, by_digest: bool
) -> None:
    """1. Its owner has fetched it. 2. Neither that peer nor another one gives it to others, by the mirror of images, by
    its URL, by its name or from inside. 3. Nothing of it is read or asked for meanwhile."""
    peers = [await network.peer(name) for name in ("p0", "p1")]
    digest = sha256(DATA)
    path = f"/v2/a/blobs/{digest}"
    url = place.put(path, DATA)
    file = OriginFile(url, digest if by_digest else "", headers=ALICE)
    assert await read(peers[0], file) == DATA
    for peer in peers:
        async with doors(peer, place) as (client, gateway):
            ns = {"ns": f"127.0.0.1:{place.port}"}
            for method in ("GET", "HEAD"):
                assert (await client.request(method, path, params=ns)).status_code == 404
            target = f"/fetch/http/127.0.0.1:{place.port}{path}"
            for asked in ({}, {"X-Minga-Digest": digest}, {"Authorization": "Bearer eve"}):
                assert (await client.get(target, headers=asked)).status_code == 403
            (private,) = gateway.catalogue.files
            assert (await client.get(f"/files/{private}")).status_code == 404
            assert not gateway.streams.read_bytes
        assert await peer.origins.held(digest) is None
        for headers in ({}, EVE):
            with pytest.raises(OriginRefusedError):
                await read(peer, OriginFile(url, file.digest, headers=headers))
    assert place.count("GET") - refused_gets(place) == 1
    # Its owner finds it in the cache by its URL: its name says nothing.
    assert [file.url for file in peers[0].origins.cache.files()] == [url]
    names = set(network.directory.located)
    assert names
    assert all(name.startswith(PRIVATE_PREFIX) for name in names)


def refused_gets(place: Origin) -> int:
    return sum(
        each.method == "GET" and each.headers.get("authorization") not in place.faults.admits for each in place.requests
    )


@pytest.mark.parametrize("by_digest", [True, False])
async def test_owners_share_one_fetch(network: Network, place: Origin, by_digest: bool) -> None:
    """With credentials of their own, which the origin is asked by, one after the other and at once; those of another
    peer are never sent."""
    peers = [await network.peer(name) for name in ("p0", "p1", "p2")]
    url = place.put("/a.bin", DATA)
    files = [OriginFile(url, sha256(DATA) if by_digest else "", headers=each) for each in (ALICE, BOB, BOB)]
    both = zip(peers[:2], files[:2], strict=True)
    assert await asyncio.gather(*(read(peer, file) for peer, file in both)) == [DATA, DATA]
    assert await read(peers[2], files[2]) == DATA
    assert place.count("GET") == 1
    asked = place.count("HEAD")
    assert await read(peers[0], files[1]) == DATA
    assert (place.count("GET"), place.count("HEAD")) == (1, asked + 1)


async def test_one_who_may_no_more_gets_nothing_more(network: Network, place: Origin) -> None:
    """What the origin said before does not count, and what is on this disk is no exception. An origin that is away says
    nothing, and takes nothing away."""
    peer = await network.peer("p0")
    file = OriginFile(place.put("/a.bin", DATA), sha256(DATA), headers=ALICE)
    assert await read(peer, file) == DATA
    place.faults.admits = ("Bearer bob",)
    with pytest.raises(OriginRefusedError):
        await read(peer, file)
    place.faults.admits = ()
    for status, error in ((404, FileNotFoundInDirectoryError), (503, UnavailableError)):
        place.faults.status = status
        with pytest.raises(error):
            await read(peer, file)
    place.faults.status = 200
    assert await read(peer, file) == DATA
    assert place.count("GET") == 1


async def test_an_answer_for_one_url_opens_no_other(network: Network, place: Origin) -> None:
    """Who knows the digest of what others may have names it for a URL of their own, here and at that origin."""
    peer = await network.peer("p0")
    assert await read(peer, OriginFile(place.put("/secret.bin", DATA), sha256(DATA), headers=ALICE)) == DATA
    async with origin() as own:
        network.allowed.append(own.url)
        other = await network.peer("p1")
        for url in (own.put("/a.bin", b"mine"), place.put("/mine.bin", b"mine")):
            for headers in (BOB, {}):
                with pytest.raises(MingaError):
                    await read(other, OriginFile(url, sha256(DATA), headers=headers))


async def test_who_signs_a_url_shares_it_with_all_who_do(network: Network, place: Origin) -> None:
    """Signatures differ each time and are no part of the name; without one nobody gets it, and no HEAD is sent."""
    peers = [await network.peer(name) for name in ("p0", "p1")]
    place.faults.admits = ()
    url = place.put("/a.bin", DATA)
    for peer, signature in ((peers[0], "one"), (peers[1], "two"), (peers[0], "three")):
        query = f"X-Amz-Date={signature}&versionId=7&X-Amz-Signature={signature}"
        assert await read(peer, OriginFile(f"{url}?{query}")) == DATA
    assert place.count("HEAD") == 0
    assert place.sent_bytes < len(DATA) + 100
    assert all(name.startswith(PRIVATE_PREFIX) for name in network.directory.located)
    place.faults.admits = ("Bearer bob",)
    with pytest.raises(OriginRefusedError):
        await read(peers[0], OriginFile(f"{url}?versionId=7&X-Amz-Signature=four"))


async def test_what_is_private() -> None:
    """1. Whatever may be credentials makes it so, 2. unless its caller knows better. 3. The name says nothing of it."""
    url, digest = "https://a/secret.bin", sha256(b"x")
    assert not OriginFile(url, digest, headers={"Accept": "x/y", "VIA": "1.1 a"}).is_private
    assert not OriginFile(url + "?version=1").is_private
    for file in (
        OriginFile(url, digest, headers={"authorization": "Bearer a"}),
        OriginFile(url, digest, headers={"X-Api-Key": "a"}),
        OriginFile(url, validator='"1"', headers={"Cookie": "a"}),
        OriginFile(f"{url}?signature=abc", digest),
        OriginFile(f"{url}?X-Amz-Signature=abc", validator='"1"'),
        OriginFile(f"{url}?sv=1&sig=abc", validator='"1"'),
        OriginFile(url, digest, private=True),
    ):
        assert file.is_private
        name = name_of(file)
        assert name.startswith(PRIVATE_PREFIX)
        assert "secret" not in name
        assert digest.removeprefix("sha256:") not in name
    known = OriginFile(url, digest, headers={"Authorization": "Bearer anybody"}, private=False)
    assert name_of(known) == Name(f"origins/sha256/{digest.removeprefix('sha256:')}")
