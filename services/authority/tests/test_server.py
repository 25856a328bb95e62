"""The server, over real connections: joining end to end, and what strangers send."""

import asyncio
import json
import socket
import ssl
from dataclasses import replace
from pathlib import Path

import pytest

from minga_authority import server as server_module
from minga_authority.terms import Terms
from minga_core.clock import SystemClock
from minga_core.errors import (
    InvalidArgumentError,
    PermissionDeniedError,
    UnauthenticatedError,
    UnavailableError,
)
from minga_runtime.trust.authority_call import AUTHORITY_HOST, call_authority
from minga_runtime.trust.credentials_folder import CA, CERTIFICATE, KEY, Joined
from minga_runtime.trust.joining import JoinToken, join, renew
from minga_runtime.trust.members import Role
from services.authority.tests.support import HOUR, Running, credentials, reissue, running


async def test_join_and_renew(tmp_path: Path) -> None:
    """What `minga join` writes is a member's credentials, private, and good for its renewal."""
    async with running(tmp_path / "ca") as net:
        joined = await join(net.token(), tmp_path / "alpha", "alpha")
        assert joined == Joined(net.url, "spiffe://test/peer/alpha", HOUR.total_seconds(), "registry:50051")
        before = await asyncio.to_thread(credentials, tmp_path / "alpha")
        assert str(before.member) == "peer alpha"
        first = before.current().certificate
        files = list((tmp_path / "alpha").iterdir())
        assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
        assert (tmp_path / "alpha").stat().st_mode & 0o777 == 0o700
        assert "publication.key" not in {path.name for path in files}

        await renew(tmp_path / "alpha", joined)
        after = await asyncio.to_thread(credentials, tmp_path / "alpha")
        assert after.member == before.member
        assert after.current().certificate != first


async def test_the_authority_is_known_by_the_hash_in_the_token_alone(tmp_path: Path) -> None:
    """Another one at its address gets nothing: not even the token."""
    async with running(tmp_path / "ca") as net, running(tmp_path / "other") as other:
        token = other.token()
        deceived = replace(token, authority=net.url)
        with pytest.raises(UnauthenticatedError, match="is not the authority that made the token"):
            await join(deceived, tmp_path / "alpha", "alpha")
        assert net.authority.store.members() == []


async def test_a_member_cannot_stand_for_the_authority(tmp_path: Path) -> None:
    """A locator's certificate is of the same CA, and may be for the authority's host."""
    async with running(tmp_path / "ca") as net:
        terms = Terms(Role.LOCATOR, "locator", ("127.0.0.1", "localhost"))
        await join(net.token(terms), tmp_path / "locator")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tmp_path / "locator" / CERTIFICATE, tmp_path / "locator" / KEY)
        server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0, ssl=context)
        async with server:
            trusted = ssl.create_default_context(cafile=str(tmp_path / "locator" / CA))
            url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            with pytest.raises(UnavailableError, match=AUTHORITY_HOST):
                await call_authority(url, trusted, "GET", "/v1/trust")


async def test_renewal_demands_a_certificate_that_is_good(tmp_path: Path) -> None:
    async with running(tmp_path / "ca") as net:
        joined = await join(net.token(), tmp_path / "alpha", "alpha")
        nobody = ssl.create_default_context(cafile=str(tmp_path / "alpha" / CA))
        with pytest.raises(UnauthenticatedError, match="a certificate of this network is needed"):
            await call_authority(net.url, nobody, "POST", "/v1/renew", {"csr": ""})
        await renew(tmp_path / "alpha", joined)
        assert net.authority.revoke("alpha")
        with pytest.raises(PermissionDeniedError, match="has been revoked"):
            await renew(tmp_path / "alpha", joined)
        joined = await join(net.token(), tmp_path / "beta", "beta")
        reissue(net.authority.folder, tmp_path / "beta", HOUR, ago=2 * HOUR)
        with pytest.raises(UnauthenticatedError, match="ended at"):
            await renew(tmp_path / "beta", joined)


async def test_a_new_ca_is_served_without_a_restart(tmp_path: Path) -> None:
    """Who joined before renews, and trusts both; who joins after does as well."""
    async with running(tmp_path / "ca") as net:
        joined = await join(net.token(), tmp_path / "alpha", "alpha")
        # An hour ago: it signs already.
        net.authority.folder.add_ca(SystemClock().wall() - 3600)
        await renew(tmp_path / "alpha", joined)
        assert (tmp_path / "alpha" / CA).read_text().count("BEGIN CERTIFICATE") == 2
        await renew(tmp_path / "alpha", joined)
        await join(net.token(), tmp_path / "beta", "beta")
        await asyncio.to_thread(credentials, tmp_path / "beta")


async def test_an_auditor_sees_who_joined_renewed_was_revoked_and_was_refused(tmp_path: Path) -> None:
    """And neither token nor key nor grant."""
    async with running(tmp_path / "ca", audit=tmp_path / "audit") as net:
        token = net.token()
        joined = await join(token, tmp_path / "alpha", "alpha")
        await renew(tmp_path / "alpha", joined)
        assert net.authority.revoke("alpha")
        with pytest.raises(PermissionDeniedError):
            await renew(tmp_path / "alpha", joined)
        with pytest.raises(UnauthenticatedError):
            await join(replace(token, text="x.y.z"), tmp_path / "beta", "beta")
        with socket.create_connection(("127.0.0.1", net.port)) as plain:
            plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
            await asyncio.to_thread(plain.recv, 1)
        assert [net.refused(each) for each in ("revoked", "token_invalid", "handshake_failed")] == [1, 1, 1]
    text = (tmp_path / "audit").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    member = "spiffe://test/peer/alpha"
    told = [(line["event"], line.get("member") or line.get("revoked") or line.get("reason")) for line in lines]
    assert told == [
        ("token_created", None),
        ("joined", member),
        ("renewed", member),
        ("revoked", member),
        ("refused", "revoked"),
        ("refused", "token_invalid"),
        ("refused", "handshake_failed"),
    ]
    created, entered, renewed = lines[:3]
    assert (entered["who"], renewed["who"]) == ("127.0.0.1", member)
    assert entered["token"] == created["token"]
    grant = (tmp_path / "alpha" / "grant.jwt").read_text()
    assert not any(secret in text for secret in (token.text.split(".")[2], grant.split(".")[2], "PRIVATE"))


REQUESTS = {
    b"GET /nothing HTTP/1.1\r\n\r\n": 404,
    b"PUT /v1/join HTTP/1.1\r\n\r\n": 405,
    b"GET /v1/join HTTP/1.1\r\n\r\n": 405,
    b"\x16\x03\x01\r\n\r\n": 400,
    b"GET /livez HTTP/2.0\r\n\r\n": 400,
    b"GET  /livez HTTP/1.1\r\n\r\n": 400,
    b"GET /livez HTTP/1.1\r\nA: \xff\r\n\r\n": 400,
    b"POST /v1/join HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}": 400,
    b"POST /v1/join HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n": 400,
    b"POST /v1/join HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n": 413,
    b"GET /livez HTTP/1.1\r\nA: " + b"a" * 9000 + b"\r\n\r\n": 431,
    b"POST /v1/join HTTP/1.1\r\nContent-Length: 2\r\n\r\n[]": 422,
    b"POST /v1/join HTTP/1.1\r\nContent-Length: 30000\r\n\r\n" + b"[" * 30000: 422,
    b'POST /v1/join HTTP/1.1\r\nContent-Length: 11\r\n\r\n{"token":1}': 400,
    b"POST /v1/join HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}": 401,
    b"POST /v1/renew HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}": 401,
    b"GET /readyz HTTP/1.1\r\n\r\n": 200,
    b"GET /v1/grant-keys HTTP/1.1\r\n\r\n": 200,
    b"GET /v1/revoked?x=y HTTP/1.1\r\n\r\n": 404,
}


async def test_whatever_is_sent_gets_its_answer_and_no_error_of_ours(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path / "ca") as net:
        for request, status in REQUESTS.items():
            answer = await send(net, request)
            assert int(answer.split(b" ")[1]) == status, request[:80]
            if status >= 400:
                problem = json.loads(answer.partition(b"\r\n\r\n")[2])
                assert problem["status"] == status
                assert problem["code"]
                assert problem["detail"]
        assert "request_failed" not in caplog.text
        assert net.authority.store.members() == []


async def send(net: Running, data: bytes) -> bytes:
    anybody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
    async with asyncio.timeout(5):
        reader, writer = await asyncio.open_connection("127.0.0.1", net.port, ssl=anybody)
        writer.write(data)
        answer = await reader.read()
        writer.transport.abort()
        return answer


async def test_slow_strangers_do_not_keep_members_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections that say nothing, or half a request, end by themselves."""
    monkeypatch.setattr(server_module, "REQUEST_SECONDS", 0.3)
    async with running(tmp_path / "ca") as net:
        silent = [socket.create_connection(("127.0.0.1", net.port)) for _ in range(20)]
        assert await send(net, b"POST /v1/join HTTP/1.1\r\nContent-Length: 20\r\n\r\n{") == b""
        await join(net.token(), tmp_path / "alpha", "alpha")
        for each in silent:
            each.close()


async def test_a_flood_of_joins_is_refused_as_busy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "POSTS_A_MINUTE", 3)
    async with running(tmp_path / "ca") as net:
        body = b"POST /v1/join HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}"
        answers = [(await send(net, body)).split(b" ")[1] for _ in range(10)]
        assert b"429" in answers
        assert (await send(net, b"GET /v1/trust HTTP/1.1\r\n\r\n")).split(b" ")[1] == b"200"


def test_what_is_no_token_is_refused_before_anything_is_sent() -> None:
    for text in ("", "x", "a.b.c", "a.e30.c", "." * 20_000):
        with pytest.raises(InvalidArgumentError, match="not a token for joining"):
            JoinToken.parse(text)
