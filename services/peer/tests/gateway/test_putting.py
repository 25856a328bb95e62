"""Uploads to the gateway: what is kept of them, and how much one caller may send."""

import asyncio
import http.client
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from minga_core.errors import NameTakenError, NoSpaceError
from minga_core.names import Name
from minga_peer.gateway import rights
from minga_peer.gateway.rights import metered
from minga_runtime.trust.callers import OPEN, Caller, Callers
from minga_runtime.trust.key_sources import parse_sources
from minga_runtime.trust.members import Member, Role
from minga_runtime.trust.rights import ALL
from services.peer.tests.gateway.support import Served, located, served
from tests.support.grants import Issuer, write_keys

KIB = 1024
OWN = Member("test", Role.PEER, "peer-1")


def kept(folder: Path) -> list[str]:
    """Files of uploads."""
    return [path.name for path in folder.glob("put-*")]


async def put(gateway: Served, name: str, size: int, token: str = "", *, chunked: bool = False) -> httpx.Response:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(size // KIB):
            yield bytes(KIB)

    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with httpx.AsyncClient(base_url=gateway.url, headers=headers) as client:
        return await client.put(f"/files/{name}", content=pieces() if chunked else bytes(size))


@pytest.mark.parametrize("chunked", [True, False])
async def test_what_one_uploads_in_a_day_is_limited(tmp_path: Path, chunked: bool) -> None:
    """Each that a grant names has a quota of its own, wherever it uploads from; nothing of what is refused is kept."""
    issuer, uploads = Issuer(), tmp_path / "uploads"
    callers = Callers(OWN, parse_sources(str(write_keys(tmp_path / "keys.json", issuer))))
    alice, bob = (issuer.grant(name, publish=("*",)) for name in ("alice", "bob"))
    async with served({}, callers, uploads=uploads, daily_bytes=100 * KIB) as gateway:
        assert (await put(gateway, "a", 60 * KIB, alice)).status_code == 201
        answer = await put(gateway, "b", 60 * KIB, alice, chunked=chunked)
        assert (answer.status_code, answer.json()["code"]) == (429, "limit_exceeded")
        assert "MINGA_UPLOAD_QUOTA" in answer.json()["detail"]
        assert (await put(gateway, "b", 60 * KIB, bob)).status_code == 201
        assert kept(uploads) == []


async def test_programs_of_this_machine_have_no_quota_in_an_open_network(tmp_path: Path) -> None:
    async with served({}, uploads=tmp_path, daily_bytes=KIB) as gateway:
        assert (await put(gateway, "a", 60 * KIB)).status_code == 201


def test_whom_the_quota_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """In an open network a host; else a member, or whom its grant names. The owner of the peer has none."""
    local, remote = {"client": ("::1", 1)}, {"client": ("192.0.2.7", 1)}
    granted = Caller(None, "alice", ALL)
    assert metered({"client": None}, OPEN) is None
    assert [metered(local, caller) for caller in (OPEN, granted)] == [None, "alice"]
    assert [metered(remote, caller) for caller in (OPEN, granted)] == ["192.0.2.7", "alice"]
    assert metered(local, Caller(None, "", ALL)) == "::/64"
    monkeypatch.setattr(rights, "caller_of", lambda scope: "peer peer-1")
    assert metered(remote, Caller(OWN, OWN.uri, ALL)) == "peer peer-1"


@pytest.mark.parametrize("chunked", [True, False])
async def test_an_upload_that_does_not_fit_is_refused_and_nothing_of_it_stays(tmp_path: Path, chunked: bool) -> None:
    """Neither on this machine, nor on the others."""
    async with served({}, uploads=tmp_path) as gateway:
        gateway.uploader.failure = NoSpaceError("no living peer has room for it")
        assert (await put(gateway, "a", KIB, chunked=chunked)).status_code == 507
        gateway.free_bytes = 100
        assert (await put(gateway, "a", KIB, chunked=chunked)).status_code == 507
        assert kept(tmp_path) == []


async def test_an_upload_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    async with served({}, uploads=tmp_path) as gateway, asyncio.timeout(20):
        _, writer = await asyncio.open_connection("127.0.0.1", int(gateway.url.rpartition(":")[2]))
        writer.write(b"PUT /files/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nsome")
        while not kept(tmp_path):  # noqa: ASYNC110 - the gateway changes it
            await asyncio.sleep(0.01)
        writer.transport.abort()
        while kept(tmp_path):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("free_bytes", [0, 1 << 30])
async def test_a_client_that_sends_all_before_it_reads_learns_why_it_is_refused(
    tmp_path: Path, free_bytes: int
) -> None:
    """A fault: with bytes unread the connection was reset, and the answer lost. Refused before the body, and after
    some of it."""
    async with served({}, uploads=tmp_path) as gateway:
        gateway.free_bytes = free_bytes
        gateway.uploader.failure = NoSpaceError("no living peer has room for it")

        def send() -> int:
            with closing(http.client.HTTPConnection(gateway.url.removeprefix("http://"), timeout=20)) as connection:
                connection.request("PUT", "/files/a", body=bytes(20 << 20))
                return connection.getresponse().status

        assert await asyncio.to_thread(send) == 507


@pytest.mark.parametrize(
    ("condition", "there", "status"),
    [
        ({"If-None-Match": "*"}, False, 201),
        ({"If-None-Match": "*"}, True, 412),
        ({"If-None-Match": 'W/{own}, "b3:1"'}, True, 412),
        ({"If-None-Match": '"b3:1"'}, True, 200),
        ({"If-Match": "*"}, False, 412),
        ({"If-Match": "*"}, True, 200),
        ({"If-Match": '"b3:1", {own}'}, True, 200),
        ({"If-Match": "W/{own}"}, True, 412),
        ({"If-Match": '"b3:1"'}, True, 412),
        ({"If-Match": "{own}", "If-None-Match": "*"}, True, 412),
    ],
)
async def test_a_put_may_depend_on_what_is_there(
    tmp_path: Path, condition: dict[str, str], there: bool, status: int
) -> None:
    """Tags are read as those of a GET: several, and weak ones, which only say what is not to be there."""
    own = f'"{located("a", b"old").content_id}"'
    async with served({"a": b"old"} if there else {}, uploads=tmp_path) as gateway:
        headers = {name: text.format(own=own) for name, text in condition.items()}
        async with httpx.AsyncClient(base_url=gateway.url, headers=headers) as client:
            answer = await client.put("/files/a", content=b"new")
        assert answer.status_code == status
        assert gateway.uploader.published == ({Name("a"): b"new"} if status < 300 else {})


async def test_a_put_of_a_new_file_loses_to_one_that_came_first(tmp_path: Path) -> None:
    """The directory decides, not the look before the upload."""
    async with served({}, uploads=tmp_path) as gateway:
        gateway.uploader.failure = NameTakenError("a is another content")
        async with httpx.AsyncClient(base_url=gateway.url, headers={"If-None-Match": "*"}) as client:
            assert (await client.put("/files/a", content=b"new")).status_code == 412
