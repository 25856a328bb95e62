"""What HTTP's own clients rely on: ranges, conditions, HEAD, odd names (RFC 9110, 13 and 14).

The same tests run against nginx, where it is installed: what they demand is what the world's servers do.
"""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from minga_runtime.sockets import listen_tcp
from services.peer.tests.gateway.support import served

DATA = bytes(range(256)) * 40
SIZE = len(DATA)
FILES = {
    "a.bin": DATA,
    "empty": b"",
    "folder/ü & 100%#?+;=@.txt": b"odd",
    "folder/a:b": b"colon",
    "folder/two  spaces\u00a0": b"spaces",
}
_NGINX = """
{user} daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error;
events {{ }}
http {{ access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s; server {{ listen 127.0.0.1:{port}; root {folder}; }} }}
"""


@dataclass(frozen=True, slots=True)
class Server:
    """What is tried."""

    client: httpx.AsyncClient
    is_nginx: bool

    async def get(self, name: str = "a.bin", method: str = "GET", **headers: str) -> httpx.Response:
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        return await self.client.request(method, f"/files/{quote(name)}", headers=named)


@pytest.fixture(name="server", params=["gateway", "nginx"])
async def _server(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Server]:
    if request.param == "gateway":
        async with served(FILES) as gateway, httpx.AsyncClient(base_url=gateway.url) as client:
            yield Server(client, False)
        return
    if shutil.which("nginx") is None:
        pytest.skip("no nginx: make doors installs it")
    for name, data in FILES.items():
        path = tmp_path / "files" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    with listen_tcp("127.0.0.1:0") as free:
        port = free.getsockname()[1]
    # Else its workers could not get here.
    user = "user root;" if os.getuid() == 0 else ""
    (tmp_path / "nginx.conf").write_text(_NGINX.format(user=user, folder=tmp_path, port=port))
    process = await asyncio.create_subprocess_exec("nginx", "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf"))
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            await _until_it_answers(client)
            yield Server(client, True)
    finally:
        process.terminate()
        await process.wait()


async def _until_it_answers(client: httpx.AsyncClient) -> None:
    async with asyncio.timeout(10):
        while True:
            try:
                await client.get("/")
                return
            except httpx.ConnectError:
                await asyncio.sleep(0.02)


async def test_a_whole_file(server: Server) -> None:
    """200, its length, a strong tag, a date, and no Content-Range."""
    answer = await server.get()
    assert (answer.status_code, answer.content) == (200, DATA)
    assert answer.headers["content-length"] == str(SIZE)
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["etag"].startswith('"')
    assert "last-modified" in answer.headers
    assert "content-range" not in answer.headers
    assert "content-encoding" not in answer.headers


async def test_head_is_a_get_without_a_body(server: Server) -> None:
    """The same status, length, tag and date."""
    got, head = await server.get(), await server.get(method="HEAD")
    assert (head.status_code, head.content) == (200, b"")
    for name in ("content-length", "etag", "last-modified", "accept-ranges", "content-type"):
        assert head.headers[name] == got.headers[name]


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [
        ("bytes=0-", 0, SIZE),
        ("bytes=0-0", 0, 1),
        ("bytes=100-199", 100, 200),
        (f"bytes={SIZE - 1}-", SIZE - 1, SIZE),
        (f"bytes=5-{SIZE * 10}", 5, SIZE),
        ("bytes=-1", SIZE - 1, SIZE),
        ("bytes=-100", SIZE - 100, SIZE),
        (f"bytes=-{SIZE + 5}", 0, SIZE),
        ("bytes= 7-9", 7, 10),
    ],
)
async def test_one_range(server: Server, asked: str, start: int, stop: int) -> None:
    """206 with exactly these bytes, and says which; what is beyond the end is cut."""
    answer = await server.get(range=asked)
    assert answer.status_code == 206
    assert answer.content == DATA[start:stop]
    assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/{SIZE}"
    assert answer.headers["content-length"] == str(stop - start)


@pytest.mark.parametrize("asked", [f"bytes={SIZE}-", f"bytes={SIZE}-{SIZE + 10}", "bytes=-0"])
async def test_a_range_behind_the_end(server: Server, asked: str) -> None:
    """416 that says the size: `curl -C -` and `wget -c` take it as complete."""
    answer = await server.get(range=asked)
    assert answer.status_code == 416
    assert answer.headers["content-range"] == f"bytes */{SIZE}"


@pytest.mark.parametrize(
    "asked", ["lines=0-5", "bytes", "bytes=", "bytes=a-b", "bytes=5-2", "bytes=1-2,5-6", "bytes=--1", "bytes=1-2-3"]
)
async def test_what_is_no_single_range_is_answered_whole(server: Server, asked: str) -> None:
    """A server may ignore any Range, and must one that it does not understand. nginx refuses some, and serves many."""
    answer = await server.get(range=asked)
    if server.is_nginx:
        assert answer.status_code in (200, 206, 416)
        return
    assert (answer.status_code, answer.content) == (200, DATA)


async def test_an_empty_file(server: Server) -> None:
    """It is there, and has no range."""
    answer = await server.get("empty")
    assert (answer.status_code, answer.content, answer.headers["content-length"]) == (200, b"", "0")
    for asked in ("bytes=0-", "bytes=0-0", "bytes=-5"):
        answer = await server.get("empty", range=asked)
        if not server.is_nginx:
            assert (answer.status_code, answer.headers["content-range"]) == (416, "bytes */0")


async def test_if_none_match(server: Server) -> None:
    """304 for the tag, in a list, weak, or for any; with the tag, without a body."""
    etag = (await server.get()).headers["etag"]
    for match in (etag, f'"other", {etag}', f"W/{etag}", "*"):
        answer = await server.get(if_none_match=match)
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", etag)
    assert (await server.get(if_none_match='"other"')).status_code == 200
    assert (await server.get(method="HEAD", if_none_match=etag)).status_code == 304


async def test_if_match(server: Server) -> None:
    """412 when the file is another one by now."""
    etag = (await server.get()).headers["etag"]
    for match in (etag, f'"other", {etag}', "*"):
        assert (await server.get(if_match=match)).status_code == 200
    assert (await server.get(if_match='"other"')).status_code == 412
    assert (await server.get(if_match='"other"', range="bytes=0-5")).status_code == 412


async def test_dates(server: Server) -> None:
    """If-Modified-Since and If-Unmodified-Since, which a tag overrules; what is no date is as if it were not there."""
    first = await server.get()
    date, etag = first.headers["last-modified"], first.headers["etag"]
    old = "Sat, 01 Jan 2000 00:00:00 GMT"
    assert (await server.get(if_modified_since=date)).status_code == 304
    assert (await server.get(if_modified_since=old)).status_code == 200
    assert (await server.get(if_modified_since=date, if_none_match='"other"')).status_code == 200
    assert (await server.get(if_unmodified_since=old)).status_code == 412
    assert (await server.get(if_unmodified_since=date)).status_code == 200
    assert (await server.get(if_modified_since="yesterday")).status_code == 200
    assert (await server.get(if_unmodified_since=old, if_match=etag)).status_code in (
        (200, 412) if server.is_nginx else (200,)
    )


async def test_if_range(server: Server) -> None:
    """A range of the version that the client has, else all of the one that is there."""
    first = await server.get()
    for same in (first.headers["etag"], first.headers["last-modified"]):
        assert (await server.get(range="bytes=0-9", if_range=same)).status_code == 206
    for other in ('"other"', "Sat, 01 Jan 2000 00:00:00 GMT"):
        answer = await server.get(range="bytes=0-9", if_range=other)
        assert (answer.status_code, answer.content) == (200, DATA)


async def test_odd_names(server: Server) -> None:
    """Every name is reached by its percent-encoded form."""
    for name, data in FILES.items():
        assert (await server.get(name)).content == data, name


async def test_what_is_not_there(server: Server) -> None:
    """404, for HEAD too."""
    assert (await server.get("nope")).status_code == 404
    assert (await server.get("nope", method="HEAD")).status_code == 404


async def test_a_folder_without_its_slash_redirects(server: Server) -> None:
    """Relative links of a listing need it."""
    answer = await server.get("folder")
    assert answer.status_code == 301
    assert answer.headers["location"].endswith("/files/folder/")


async def test_other_methods_are_refused(server: Server) -> None:
    """405 for what a file does not have."""
    assert (await server.get(method="POST")).status_code == 405
