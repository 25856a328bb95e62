"""Uploads that go on where they broke off (tus 1.0)."""

import asyncio
import base64
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from minga_core.clock import ManualClock
from minga_core.errors import NoSpaceError
from minga_core.names import Name
from minga_peer.gateway import kept_uploads
from minga_runtime.trust.callers import Callers
from minga_runtime.trust.key_sources import parse_sources
from minga_runtime.trust.members import Member, Role
from services.peer.tests.gateway.support import LOCATOR, Served, served
from tests.support.grants import Issuer, write_keys

KIB = 1024
DATA = os.urandom(100 * KIB)
TUS = {"Tus-Resumable": "1.0.0"}


class Client:
    """Speaks tus to a gateway."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http

    async def create(self, name: str = "data/a.bin", size: object = len(DATA), **metadata: str) -> httpx.Response:
        headers = {"Upload-Length": str(size), "Upload-Metadata": encoded(filename=name, **metadata)}
        return await self.http.post("/uploads", headers=headers)

    async def begun(self, name: str = "data/a.bin", size: int = len(DATA)) -> str:
        """The path of a new upload."""
        answer = await self.create(name, size)
        assert answer.status_code == 201, answer.text
        return answer.headers["location"]

    async def patch(self, path: str, offset: object, data: bytes, **headers: str) -> httpx.Response:
        own = {"Upload-Offset": str(offset), "Content-Type": "application/offset+octet-stream"}
        return await self.http.patch(path, content=data, headers=own | headers)

    async def offset(self, path: str) -> int:
        answer = await self.http.head(path)
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "no-store"
        return int(answer.headers["upload-offset"])


def encoded(**metadata: str) -> str:
    """As `Upload-Metadata` has it."""
    return ",".join(f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in metadata.items())


@asynccontextmanager
async def client_of(gateway: Served, token: str = "") -> AsyncIterator[Client]:
    headers = TUS | ({"Authorization": f"Bearer {token}"} if token else {})
    async with httpx.AsyncClient(base_url=gateway.url, headers=headers) as http:
        yield Client(http)


def content_of(gateway: Served, name: str) -> bytes:
    """What has been published under a name."""
    return gateway.uploader.published[Name(name)]


def part_in(folder: Path) -> Path:
    """The bytes of the one upload of a folder."""
    (part,) = folder.glob("*.part")
    return part


def damage(folder: Path) -> None:
    """Damage three uploads, each in another way."""
    for number, record in enumerate(path for path in folder.glob("*.json") if "damaged" in path.read_text()):
        if number == 0:
            record.write_text("{")
        elif number == 1:
            record.write_text(json.dumps(json.loads(record.read_text()) | {"name": "../x"}))
        else:
            record.with_suffix(".part").unlink()
    (folder / "tus-without-a-record.part").touch()


def kept(folder: Path) -> list[str]:
    return sorted(path.suffix for path in folder.iterdir())


async def test_an_upload_in_pieces_is_placed_with_its_last_byte(tmp_path: Path) -> None:
    """Nothing of it stays here; a client that has missed the last answer learns that all is there."""
    async with served({}, uploads=tmp_path) as gateway, client_of(gateway) as client:
        answer = await client.create("data/ü.bin", replicas="2")
        path = answer.headers["location"]
        assert "GMT" in answer.headers["upload-expires"]
        for start in range(0, len(DATA), 40 * KIB):
            assert await client.offset(path) == start
            piece = DATA[start : start + 40 * KIB]
            answer = await client.patch(path, start, piece)
            assert (answer.status_code, answer.headers["upload-offset"]) == (204, str(start + len(piece)))
        assert content_of(gateway, "data/ü.bin") == DATA
        assert gateway.uploader.replicas == 2
        assert kept(tmp_path) == []
        assert await client.offset(path) == len(DATA)
        assert (await client.patch(path, len(DATA), b"")).status_code == 204
        assert (await client.patch(path, 0, DATA)).status_code == 409


async def test_an_empty_file_is_placed_at_once(tmp_path: Path) -> None:
    async with served({}, uploads=tmp_path) as gateway, client_of(gateway) as client:
        path = await client.begun(size=0)
        assert content_of(gateway, "data/a.bin") == b""
        assert (await client.offset(path), kept(tmp_path)) == (0, [])


async def test_what_of_tus_is_here(tmp_path: Path) -> None:
    """And that another version is not."""
    async with served({}, uploads=tmp_path) as gateway, httpx.AsyncClient(base_url=gateway.url) as http:
        answer = await http.options("/uploads")
        assert answer.headers["tus-version"] == "1.0.0"
        assert answer.headers["tus-extension"] == "creation,expiration,termination"
        for headers in ({}, {"Tus-Resumable": "0.2.2"}):
            answer = await http.post("/uploads", headers=headers)
            assert (answer.status_code, answer.headers["tus-version"]) == (412, "1.0.0")
        assert (await http.get("/uploads")).headers["allow"] == "POST, OPTIONS"
        preflight = {"Origin": LOCATOR, "Access-Control-Request-Method": "PATCH"}
        assert "PATCH" in (await http.options("/uploads/x", headers=preflight)).headers["access-control-allow-methods"]


@pytest.mark.parametrize("offset", [0, 39 * KIB, 41 * KIB, len(DATA)])
async def test_bytes_from_another_place_are_refused(tmp_path: Path, offset: int) -> None:
    """409, and nothing changes."""
    async with served({}, uploads=tmp_path) as gateway, client_of(gateway) as client:
        path = await client.begun()
        await client.patch(path, 0, DATA[: 40 * KIB])
        assert (await client.patch(path, offset, DATA[offset:])).status_code == 409
        assert (await client.patch(path, 40 * KIB, DATA[40 * KIB :])).status_code == 204
        assert content_of(gateway, "data/a.bin") == DATA


@pytest.mark.parametrize("chunked", [True, False])
async def test_more_than_was_announced_is_refused(tmp_path: Path, chunked: bool) -> None:
    """And is not placed; the upload may go on."""

    async def pieces() -> AsyncIterator[bytes]:
        yield DATA[40 * KIB :]
        await asyncio.sleep(0)
        yield b"more"

    async with served({}, uploads=tmp_path) as gateway, client_of(gateway) as client:
        path = await client.begun()
        await client.patch(path, 0, DATA[: 40 * KIB])
        body = pieces() if chunked else DATA[40 * KIB :] + b"more"
        assert (await client.patch(path, 40 * KIB, body)).status_code == 400  # type: ignore[arg-type]
        assert gateway.uploader.published == {}
        offset = await client.offset(path)
        assert 40 * KIB <= offset < len(DATA)
        assert (await client.patch(path, offset, DATA[offset:])).status_code == 204
        assert content_of(gateway, "data/a.bin") == DATA


async def test_what_cannot_be_placed_is_placed_later(tmp_path: Path) -> None:
    """The last byte is sent again, and no other one. So too after a crash while it was being placed."""
    async with served({}, uploads=tmp_path) as gateway, client_of(gateway) as client:
        gateway.uploader.failure = NoSpaceError("no living peer has room for it")
        path = await client.begun()
        assert (await client.patch(path, 0, DATA)).status_code == 507
        assert await client.offset(path) == len(DATA) - 1
        part = part_in(tmp_path)
        part.write_bytes(DATA)
    async with served({}, uploads=tmp_path) as gateway, client_of(gateway) as client:
        assert await client.offset(path) == len(DATA) - 1
        assert (await client.patch(path, len(DATA) - 1, DATA[-1:])).status_code == 204
        assert content_of(gateway, "data/a.bin") == DATA


async def test_an_upload_goes_on_after_a_broken_connection(tmp_path: Path) -> None:
    """With what had come; while it comes nothing else writes to it."""
    async with served({}, uploads=tmp_path) as gateway, client_of(gateway) as client:
        path = await client.begun()
        _, writer = await asyncio.open_connection("127.0.0.1", int(gateway.url.rpartition(":")[2]))
        head = "Host: localhost\r\nTus-Resumable: 1.0.0\r\nContent-Type: application/offset+octet-stream\r\n"
        writer.write(f"PATCH {path} HTTP/1.1\r\n{head}Upload-Offset: 0\r\nContent-Length: {len(DATA)}\r\n\r\n".encode())
        writer.write(DATA[: 30 * KIB])
        part = part_in(tmp_path)
        async with asyncio.timeout(20):
            while part.stat().st_size < 30 * KIB:  # noqa: ASYNC110 - the gateway writes it
                await asyncio.sleep(0.01)
            for answer in (await client.http.head(path), await client.patch(path, 30 * KIB, b"x")):
                assert (answer.status_code, answer.headers["retry-after"]) == (423, "1")
            assert (await client.http.delete(path)).status_code == 423
            writer.transport.abort()
            while (await client.http.head(path)).status_code == 423:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert await client.offset(path) == 30 * KIB
        assert (await client.patch(path, 30 * KIB, DATA[30 * KIB :])).status_code == 204
        assert content_of(gateway, "data/a.bin") == DATA


async def test_an_upload_goes_on_after_a_restart(tmp_path: Path) -> None:
    """What is damaged in the folder is removed, and stops nothing."""
    async with served({}, uploads=tmp_path) as gateway, client_of(gateway) as client:
        path = await client.begun()
        await client.patch(path, 0, DATA[: 40 * KIB])
        for number in range(3):
            await client.begun(f"damaged-{number}")
    damage(tmp_path)
    async with served({}, uploads=tmp_path) as gateway, client_of(gateway) as client:
        assert kept(tmp_path) == [".json", ".part"]
        assert await client.offset(path) == 40 * KIB
        assert (await client.patch(path, 40 * KIB, DATA[40 * KIB :])).status_code == 204
        assert content_of(gateway, "data/a.bin") == DATA


async def test_an_upload_expires_a_day_after_its_last_byte(tmp_path: Path) -> None:
    clock = ManualClock()
    async with served({}, uploads=tmp_path, clock=clock) as gateway, client_of(gateway) as client:
        path = await client.begun()
        part = part_in(tmp_path)
        os.utime(part, (clock.wall(), clock.wall()))
    clock.advance(kept_uploads.KEPT_SECONDS - 1)
    async with served({}, uploads=tmp_path, clock=clock) as gateway, client_of(gateway) as client:
        assert await client.offset(path) == 0
    clock.advance(2)
    async with served({}, uploads=tmp_path, clock=clock) as gateway, client_of(gateway) as client:
        assert (await client.http.head(path)).status_code == 404
        assert (await client.patch(path, 0, DATA)).status_code == 404
        assert kept(tmp_path) == []


async def test_a_full_disk_ends_a_request_and_not_the_upload(tmp_path: Path) -> None:
    """What came before is kept, and it goes on once there is room."""
    async with served({}, uploads=tmp_path) as gateway, client_of(gateway) as client:
        path = await client.begun()
        await client.patch(path, 0, DATA[: 40 * KIB])
        gateway.free_bytes = 1
        assert (await client.patch(path, 40 * KIB, DATA[40 * KIB :])).status_code == 507
        assert (await client.create()).status_code == 507
        gateway.free_bytes = 1 << 30
        offset = await client.offset(path)
        assert (await client.patch(path, offset, DATA[offset:])).status_code == 204
        assert content_of(gateway, "data/a.bin") == DATA


async def test_an_upload_that_is_given_up_leaves_nothing(tmp_path: Path) -> None:
    async with served({}, uploads=tmp_path) as gateway, client_of(gateway) as client:
        path = await client.begun()
        assert (await client.http.delete(path)).status_code == 204
        assert ((await client.http.head(path)).status_code, kept(tmp_path)) == (404, [])


BAD = {
    "no name": {"Upload-Length": "1"},
    "no length": {"Upload-Metadata": encoded(filename="a")},
    "a length below zero": {"Upload-Length": "-1", "Upload-Metadata": encoded(filename="a")},
    "a length beyond all": {"Upload-Length": "1" * 20, "Upload-Metadata": encoded(filename="a")},
    "a name that leaves": {"Upload-Length": "1", "Upload-Metadata": encoded(filename="a/../../b")},
    "a hidden name": {"Upload-Length": "1", "Upload-Metadata": encoded(filename=".minga/x")},
    "no base64": {"Upload-Length": "1", "Upload-Metadata": "filename !!"},
    "no text": {"Upload-Length": "1", "Upload-Metadata": "filename /w=="},
    "two names": {"Upload-Length": "1", "Upload-Metadata": f"{encoded(filename='a')},{encoded(filename='b')}"},
    "too much": {"Upload-Length": "1", "Upload-Metadata": encoded(filename="a", more="x" * 4096)},
    "many replicas": {"Upload-Length": "1", "Upload-Metadata": encoded(filename="a", replicas="1000")},
}


@pytest.mark.parametrize("headers", BAD.values(), ids=BAD.keys())
async def test_what_is_no_upload_is_refused(tmp_path: Path, headers: dict[str, str]) -> None:
    """Nothing is kept of it."""
    async with served({}, uploads=tmp_path) as gateway, client_of(gateway) as client:
        assert (await client.http.post("/uploads", headers=headers)).status_code == 400
        assert kept(tmp_path) == []


async def test_what_is_no_piece_is_refused(tmp_path: Path) -> None:
    async with served({}, uploads=tmp_path) as gateway, client_of(gateway) as client:
        path = await client.begun()
        for offset in ("", "-1", "x", "1" * 20, "0x0"):
            assert (await client.patch(path, offset, b"x")).status_code == 400
        assert (await client.patch(path, 0, b"x", **{"Content-Type": "text/plain"})).status_code == 415
        for other in ("/uploads/x", f"{path}/x", "/uploads/" + "A" * 24):
            assert (await client.patch(other, 0, b"x")).status_code in (400, 404)
        assert await client.offset(path) == 0


async def test_unfinished_uploads_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one caller half of them; finished ones do not count."""
    monkeypatch.setattr(kept_uploads, "MAX_KEPT", 4)
    async with served({}, uploads=tmp_path) as gateway, client_of(gateway) as client:
        for number in range(5):
            await client.patch(await client.begun(f"a-{number}"), 0, DATA)
        paths = [await client.begun() for _ in range(2)]
        answer = await client.create()
        assert (answer.status_code, answer.json()["code"]) == (429, "busy")
        await client.http.delete(paths[0])
        await client.begun()


async def test_bytes_count_in_the_quota_of_a_day_as_they_come(tmp_path: Path) -> None:
    """Those of uploads that are given up too."""
    issuer = Issuer()
    callers = Callers(
        Member("test", Role.PEER, "peer-1"), parse_sources(str(write_keys(tmp_path / "keys.json", issuer)))
    )
    alice, bob = (issuer.grant(name, publish=("data",)) for name in ("alice", "bob"))
    async with served({}, callers, uploads=tmp_path / "uploads", daily_bytes=len(DATA)) as gateway:
        async with client_of(gateway, alice) as client:
            path = await client.begun()
            assert (await client.patch(path, 0, DATA[: 60 * KIB])).status_code == 204
            await client.http.delete(path)
            answer = await client.create()
            assert (answer.status_code, answer.json()["code"]) == (429, "limit_exceeded")
            path = await client.begun(size=40 * KIB)
            assert (await client.patch(path, 0, DATA[: 40 * KIB])).status_code == 204
            path = await client.begun(size=0)
        async with client_of(gateway, bob) as client:
            assert (await client.patch(await client.begun(), 0, DATA)).status_code == 204


async def test_somebody_elses_upload_is_none(tmp_path: Path) -> None:
    """Who knows its id learns nothing of it; and a right that has gone meanwhile counts no more."""
    issuer = Issuer()
    callers = Callers(
        Member("test", Role.PEER, "peer-1"), parse_sources(str(write_keys(tmp_path / "keys.json", issuer)))
    )
    alice, bob = (issuer.grant(name, publish=("data",)) for name in ("alice", "bob"))
    less = issuer.grant("alice", publish=("data/other",))
    async with served({}, callers, uploads=tmp_path / "uploads") as gateway:
        async with client_of(gateway, alice) as client:
            path = await client.begun()
            assert (await client.create("data-secret/a")).status_code == 403
        for token, refused in ((bob, 404), ("", 404), (less, 403)):
            async with client_of(gateway, token) as client:
                assert (await client.patch(path, 0, DATA)).status_code == refused
                assert (await client.http.delete(path)).status_code == (204 if token == less else 404)
                if token != less:
                    assert (await client.http.head(path)).status_code == 404
        async with client_of(gateway) as client:
            assert (await client.create()).status_code == 401
        assert gateway.uploader.published == {}
