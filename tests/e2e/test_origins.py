"""Files of origins, through whole networks: fetched once, by whichever door, and never wrong."""

import asyncio
import base64
import json
import os
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from minga import AsyncClient, Client
from minga.control import ControlClient
from minga_cli.exit_codes import ExitCode
from minga_cli.localnet import LocalPeer
from minga_cli.localprocess import module_command
from minga_core.errors import ContentChangedError, FileNotFoundInDirectoryError
from minga_engine.settings import gateway_socket
from tests.support.origin import Origin, origin, sha256

from .conftest import Story, eventually, noise, running

pytestmark = pytest.mark.e2e
MIB = 1024 * 1024


@asynccontextmanager
async def network(
    tmp_path: Path, peer_count: int, *flags: str, secure: bool = False
) -> AsyncIterator[tuple[Story, Origin]]:
    """Peers, and an origin that they fetch from for others."""
    async with (
        origin() as place,
        running(
            tmp_path,
            peer_count,
            peer_flags=(f"--fetch-allow={place.url}/", "--gateway=127.0.0.1:0", *flags),
            secure=secure,
        ) as story,
    ):
        yield story, place


@asynccontextmanager
async def owner_of(peer: LocalPeer) -> AsyncIterator[httpx.AsyncClient]:
    """A client at the peer's own socket."""
    transport = httpx.AsyncHTTPTransport(uds=str(gateway_socket(peer.control)))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=60) as client:
        yield client


async def fetched(
    peer: LocalPeer, place: Origin, path: str, headers: Mapping[str, str] | None = None
) -> httpx.Response:
    """A file of the origin by the peer's gateway, as its owner."""
    async with owner_of(peer) as client:
        return await client.get(f"/fetch/http/127.0.0.1:{place.port}{path}", headers=headers)


async def minga(story: Story, peer: LocalPeer, *words: str) -> bytes:
    """What a command prints beside that peer."""
    where = ("--locator", story.net.locator_url, "--control", str(peer.control))
    process = await asyncio.create_subprocess_exec(*module_command("minga_cli", *where, *words), stdout=PIPE)
    out, _ = await process.communicate()
    assert process.returncode == 0
    return out


async def gateway(peer: LocalPeer) -> str:
    """The URL of its TCP port."""
    async with ControlClient(peer.control) as control:
        return (await control.status()).gateway_url


async def test_a_file_of_an_origin_is_fetched_once_and_found_by_all(tmp_path: Path) -> None:
    """1. The first peer has it from the origin; 2. the second from the first; 3. both from themselves. 4. It is read by
    ranges and conditions as any file of the gateway. 5. Over TCP only what a prefix names is fetched, and nothing else
    from addresses that are not public, whoever asks."""
    async with network(tmp_path, 2) as (story, place), origin() as other:
        data = noise(5 * MIB)
        place.put("/data/model.bin", data)
        for peer, source in zip(story.peers, ("upstream", "peers"), strict=True):
            found = await fetched(peer, place, "/data/model.bin")
            assert (found.status_code, found.headers["X-Minga-Source"]) == (200, source)
            assert found.content == data
        for peer in story.peers:
            await eventually(lambda peer=peer: is_local(peer, place, data), "it is in place")  # type: ignore[misc]
        etag = found.headers["ETag"]
        for asked, status, body in (
            ({"Range": "bytes=1000-1999"}, 206, data[1000:2000]),
            ({"Range": "bytes=-10"}, 206, data[-10:]),
            ({"If-None-Match": etag}, 304, b""),
            ({"Range": "bytes=0-9", "If-Range": '"other"'}, 200, data),
        ):
            found = await fetched(story.peers[0], place, "/data/model.bin", asked)
            assert (found.status_code, found.content, found.headers["ETag"]) == (status, body, etag)
        beyond = await fetched(story.peers[0], place, "/data/model.bin", {"Range": f"bytes={len(data)}-"})
        assert (beyond.status_code, beyond.headers["Content-Range"]) == (416, f"bytes */{len(data)}")
        wrong = await fetched(story.peers[0], place, "/data/model.bin", {"X-Minga-Digest": "sha256:1"})
        assert wrong.status_code == 400
        assert place.count("GET") == 1
        other.put("/a.bin", b"not allowed")
        url = await gateway(story.peers[0])
        async with httpx.AsyncClient() as client:
            head = await client.head(f"{url}/fetch/http/127.0.0.1:{place.port}/data/model.bin")
            assert (head.headers["Content-Length"], head.headers["ETag"]) == (str(len(data)), etag)
            for target in (f"http/127.0.0.1:{other.port}/a.bin", "https/example.org/", "http/localhost/"):
                assert (await client.get(f"{url}/fetch/{target}")).status_code == 403
        assert (await fetched(story.peers[0], other, "/a.bin")).status_code == 403
        place.faults.redirect_to = other.url + "/a.bin"
        assert (await fetched(story.peers[0], place, "/data/model.bin")).status_code == 403
        assert not other.requests


async def is_local(peer: LocalPeer, place: Origin, data: bytes) -> bool:
    """Whether a peer has the file in place: its readers have the last byte a moment before."""
    found = await fetched(peer, place, "/data/model.bin")
    assert (found.status_code, found.content) == (200, data)
    return found.headers["X-Minga-Source"] == "local"


async def test_a_head_fetches_nothing_and_redirects_are_followed(tmp_path: Path) -> None:
    """A HEAD says what the origin says, also where the caller knows the digest; a range is of where it leads."""
    async with (
        origin() as front,
        origin() as place,
        running(tmp_path, 1, peer_flags=(f"--fetch-allow={front.url}/,{place.url}/",)) as story,
        owner_of(story.peers[0]) as client,
    ):
        data, path = noise(2 * MIB), f"/fetch/http/127.0.0.1:{front.port}/a.bin"
        place.put("/b.bin", data)
        front.faults.redirect_to = f"{place.url}/b.bin"
        for headers in ({}, {"X-Minga-Digest": sha256(data)}):
            head = await client.head(path, headers=headers)
            assert (head.status_code, head.headers["Content-Length"]) == (200, str(len(data)))
        assert place.count("GET") == 0
        part = await client.get(path, headers={"Range": "bytes=10-19"})
        assert (part.status_code, part.content) == (206, data[10:20])


async def test_a_fetcher_that_dies_is_replaced_by_a_follower(tmp_path: Path) -> None:
    """In a secure network; kill -9 in the middle: another one goes on from where it is, and no client notices."""
    async with network(tmp_path, 3, secure=True) as (story, place):
        data = noise(16 * MIB)
        place.put("/a.bin", data)
        place.faults.stalls_after = 8 * MIB
        digest = {"X-Minga-Digest": sha256(data)}
        first = asyncio.create_task(fetched(story.peers[0], place, "/a.bin", digest))

        async def begun() -> bool:
            return place.sent_bytes > 0

        await eventually(begun, "the first one fetches")
        others = [asyncio.create_task(fetched(peer, place, "/a.bin", digest)) for peer in story.peers[1:]]

        async def followed() -> bool:
            return all(held_bytes(peer) >= 7 * MIB for peer in story.peers[1:])

        await eventually(followed, "the others have what there is")
        place.faults.stalls_after = None
        story.peers[0].kill()
        for each in others:
            assert (await each).content == data
        gets = [each for each in place.requests if each.method == "GET"]
        assert len(gets) in (2, 3)
        assert all("range" in each.headers for each in gets[1:])
        assert place.sent_bytes <= 1.1 * len(data)
        await asyncio.gather(first, return_exceptions=True)


def held_bytes(peer: LocalPeer) -> int:
    """What is on the disk of parts."""
    parts = (peer.share_dir / ".minga" / "parts").glob("*.data")
    return sum(path.stat().st_blocks * 512 for path in parts)


async def test_minga_get_of_a_url(tmp_path: Path) -> None:
    """Into the shared folder, to a path, under a name of one's own; a wrong digest is one clear error."""
    async with network(tmp_path, 2) as (story, place):
        data = noise(2 * MIB)
        url = place.put("/v1/tool.tar.gz", data)
        async with AsyncClient(locator=story.net.locator_url, control=story.peers[0].control) as client:
            first = await client.get(url)
            assert first.path is not None
            assert first.path.read_bytes() == data
            assert first.path.name == "tool.tar.gz"
            again = await client.get(f"{url}#{sha256(data).replace(':', '=')}", tmp_path / "copy")
            assert (tmp_path / "copy").read_bytes() == data
            assert again.content_id == first.content_id
            with pytest.raises(ContentChangedError, match="sha256:"):
                await client.get(f"{url}#sha256={64 * '0'}")
            async with await client.open(url) as file:
                assert await file.read() == data
            with pytest.raises(FileNotFoundInDirectoryError, match="HTTP 404"):
                await client.get(f"{place.url}/nothing")
        await minga(story, story.peers[1], "get", url, "--as", "tools/tool.tar.gz")
        assert (story.peers[1].share_dir / "tools/tool.tar.gz").read_bytes() == data

        async def published() -> bool:
            return await story.holders("tools/tool.tar.gz") == {"peer-2"}

        await eventually(published, "it has the name")
        for action, pinned in (("pin", True), ("unpin", False), ("rm", None)):
            (kept,) = json.loads(await minga(story, story.peers[1], "cache", "ls", "--json"))["files"]
            assert (kept["url"], kept["size_bytes"]) == (url, len(data))
            await minga(story, story.peers[1], "cache", action, kept["name"])
            left = json.loads(await minga(story, story.peers[1], "cache", "ls", "--json"))["files"]
            assert [file["pinned"] for file in left] == ([] if pinned is None else [pinned])
        assert (story.peers[1].share_dir / "tools/tool.tar.gz").read_bytes() == data


async def test_minga_cat_and_open_of_a_url(tmp_path: Path) -> None:
    """By the command and from Python; what demands credentials by those of `~/.netrc`, and by nothing else."""
    async with network(tmp_path, 1) as (story, place):
        data = noise(2 * MIB)
        public, private = place.put("/a.bin", data), place.put("/private.bin", data[::-1])
        control = story.peers[0].control
        common = ("--locator", story.net.locator_url, "--control", str(control), "cat")

        async def cat(*urls: str) -> tuple[int, bytes, bytes]:
            process = await asyncio.create_subprocess_exec(
                *module_command("minga_cli", *common, *urls), stdout=PIPE, stderr=PIPE, env=os.environ | {"HOME": home}
            )
            out, err = await process.communicate()
            return process.returncode or 0, out, err

        home = str(tmp_path)
        digest = sha256(data).replace(":", "=")
        assert await cat(public, f"{public}#{digest}") == (0, data + data, b"")
        code, out, err = await cat(f"{public}#sha256={64 * '0'}")
        assert (code, out) == (ExitCode.INTEGRITY, b"")
        assert b"sha256:" in err

        def read() -> bytes:
            with Client(locator=story.net.locator_url, control=control) as client, client.open(public) as file:
                file.seek(-10, os.SEEK_END)
                return file.read()

        assert await asyncio.to_thread(read) == data[-10:]
        place.faults.admits = ("Basic " + base64.b64encode(b"alice:secret").decode(),)
        (tmp_path / ".netrc").write_text("machine 127.0.0.1 login alice password secret\n")
        (tmp_path / ".netrc").chmod(0o600)
        private_digest = sha256(data[::-1]).replace(":", "=")
        for url in (private, f"{private}#{private_digest}"):
            assert await cat(url) == (0, data[::-1], b"")
        home = str(tmp_path / "elsewhere")
        for url in (private, f"{private}#{private_digest}"):
            code, out, err = await cat(url)
            assert (code, out) == (ExitCode.DENIED, b"")
            assert b"the origin refuses" in err
