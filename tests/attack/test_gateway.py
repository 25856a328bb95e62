"""The HTTP gateway of a peer, which other machines reach: strangers, names that are not theirs, grants, and pages."""

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from minga.control import ControlClient
from tests.support.authority import Authority

from .attacker import LIMIT_SECONDS, Attacker
from .network import CONTENTS, OURS, Network, network
from .test_rights import BAD_GRANTS

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.e2e]

NAME = "peer-1.peer.minga"
TUS = "Tus-Resumable: 1.0.0\r\nUpload-Length: 1\r\nUpload-Metadata: filename "


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="secure")
async def _secure(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Network]:
    """As `secure` of other modules, with gateways that other machines reach."""
    folder = tmp_path_factory.mktemp("gateway")
    async with network(folder, secure=True, rights=True, peer_count=1, peer_flags=("--gateway", "0.0.0.0:0")) as made:
        yield made


async def port_of(net: Network) -> int:
    """Of the first peer's gateway."""
    async with ControlClient(net.peer.control) as control:
        url = (await control.status()).gateway_url
    assert url.startswith("https://127.0.0.1:")
    return int(url.rpartition(":")[2])


def basic(grant: str) -> str:
    return "Basic " + base64.b64encode(f":{grant}".encode()).decode()


async def ask(
    net: Network, method: str, target: str, authorization: str = "", *, host: str = NAME, more: str = "", body: str = ""
) -> int:
    """The status that a request gets, whose target and headers are sent as they are."""
    context = ssl.create_default_context(cadata=net.authority.pem.decode())
    async with asyncio.timeout(LIMIT_SECONDS):
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", await port_of(net), ssl=context, server_hostname=NAME
        )
        try:
            head = f"{method} {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {len(body)}\r\n"
            head += f"Authorization: {authorization}\r\n" if authorization else ""
            writer.write(f"{head}{more}\r\n{body}".encode())
            answer = await reader.readuntil(b"\r\n\r\n")
            assert b"access-control-allow-origin: *" not in answer.lower()
            return int(answer.split()[1])
        finally:
            writer.transport.abort()


async def test_other_machines_speak_tls_with_it(secure: Network, tmp_path: Path) -> None:
    """With the peer's certificate; what is sent without is not answered."""
    port = await port_of(secure)
    with pytest.raises((OSError, asyncio.IncompleteReadError)):
        await Attacker(plain=True).http(f"127.0.0.1:{port}", b"GET /files/ HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    foreign = Authority().issue(tmp_path / "foreign", "client", "someone")
    who = Attacker(secure.authority.pem, foreign)
    with pytest.raises((OSError, asyncio.IncompleteReadError)):
        await who.http(f"127.0.0.1:{port}", b"GET /files/ HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    trusted = ("--cacert", secure.credentials / "peer-1/ca.crt", "--resolve", f"{NAME}:{port}:127.0.0.1")
    grant = secure.issuer.grant("alice", read=("secret.bin",))
    process = await asyncio.create_subprocess_exec(
        *("curl", "-sS", "-o", tmp_path / "copy", "-w", "%{http_code}", *trusted, "-u", f":{grant}"),
        f"https://{NAME}:{port}/files/secret.bin",
        stdout=asyncio.subprocess.PIPE,
    )
    printed, _ = await process.communicate()
    assert (process.returncode, printed) == (0, b"200")
    assert (tmp_path / "copy").read_bytes() == CONTENTS["secret.bin"]


async def test_without_a_grant_it_is_as_the_network_says(secure: Network) -> None:
    """What all members may read and publish, and nothing else."""
    assert OURS == "secret.bin,data"
    for target in ("/files/secret.bin", "/files/data/tiny.txt", "/files/", "/transfers", "/health"):
        assert await ask(secure, "GET", target) == 200, target
    for method, target in (("GET", "/files/ops/key"), ("PUT", "/files/ops/key"), ("DELETE", "/files/ops/key")):
        assert await ask(secure, method, target, body="x" if method == "PUT" else "") == 401, method
    assert await ask(secure, "POST", "/uploads", more=f"{TUS}b3BzL2tleQ==\r\n") == 401


@pytest.mark.parametrize("scheme", ["bearer", "basic"])
async def test_a_grant_gives_its_rights_and_no_more(secure: Network, scheme: str) -> None:
    """Less than a caller has without one, too."""
    grant = secure.issuer.grant("alice", read=("data",), publish=("data/alice",))
    shown = f"Bearer {grant}" if scheme == "bearer" else basic(grant)
    assert await ask(secure, "GET", "/files/data/tiny.txt", shown) == 200
    assert await ask(secure, "PUT", f"/files/data/alice/{scheme}", shown, body="mine") == 201
    assert (secure.peer.share_dir / "data/alice" / scheme).read_bytes() == b"mine"
    assert await ask(secure, "DELETE", f"/files/data/alice/{scheme}", shown) == 204
    for method, target in (
        ("GET", "/files/secret.bin"),
        ("HEAD", "/files/secret.bin"),
        ("PUT", "/files/secret.bin"),
        ("PUT", "/files/data/tiny.txt"),
        ("DELETE", "/files/secret.bin"),
        ("DELETE", "/files/data/tiny.txt"),
    ):
        assert await ask(secure, method, target, shown, body="evil" if method == "PUT" else "") == 403, (method, target)
    for name in (b"secret.bin", b"data/tiny.txt", b"data/alicex"):
        encoded = base64.b64encode(name).decode()
        assert await ask(secure, "POST", "/uploads", shown, more=f"{TUS}{encoded}\r\n") == 403


TRICKS = {
    "a longer folder": "data-secret/x",
    "a longer name": "datax",
    "capitals": "DATA/x",
    "up": "data/../secret.bin",
    "up, encoded": "data/%2e%2e/secret.bin",
    "up, the slash encoded": "data%2F..%2Fsecret.bin",
    "up, encoded twice": "data/%252e%252e/secret.bin",
    "down and up": "data/x/../../secret.bin",
    "backslashes": "data%5C..%5Csecret.bin",
    "an empty part": "data//x/../../secret.bin",
    "from the root": "/data/../secret.bin",
    "a part that is nothing": "data/./../secret.bin",
    "an end of text": "data%00/../secret.bin",
    "bytes that are no text": "data/%c0%ae%c0%ae/secret.bin",
    "an absolute path": "%2Fetc%2Fpasswd",
    "the state folder": ".minga/index.sqlite",
    "a hidden part of it": "data/../.minga/index.sqlite",
    "another version": "secret.bin@b3:" + "0" * 64,
    "a dash over a letter": "da%CC%84ta/x",
}


@pytest.mark.parametrize("trick", TRICKS)
async def test_no_spelling_leaves_the_folder_of_a_grant(secure: Network, trick: str) -> None:
    """For none of the methods. What is below `data` under a strange name is good, and is nothing that exists."""
    grant = f"Bearer {secure.issuer.grant('alice', read=('data',), publish=('data',))}"
    inside = TRICKS[trick].startswith("data/%25")
    for method in ("GET", "HEAD", "DELETE"):
        assert await ask(secure, method, f"/files/{TRICKS[trick]}", grant) in ((404,) if inside else (400, 403)), method
    if not inside:
        assert await ask(secure, "PUT", f"/files/{TRICKS[trick]}", grant, body="evil") in (400, 403)


async def test_a_name_in_another_normal_form_is_the_same_name(secure: Network) -> None:
    """The right is of the name, however its letters are composed: neither way around it, nor out of it."""
    grant = f"Bearer {secure.issuer.grant('alice', read=('data/ä',), publish=('data/ä',))}"
    composed, decomposed, other = "data/%C3%A4/x", "data/a%CC%88/x", "data/a%CC%8A/x"
    assert await ask(secure, "PUT", f"/files/{decomposed}", grant, body="x") == 201
    for spelling in (composed, decomposed):
        assert await ask(secure, "GET", f"/files/{spelling}", grant) == 200
    assert await ask(secure, "DELETE", f"/files/{composed}", grant) == 204
    for method in ("GET", "PUT", "DELETE"):
        assert await ask(secure, method, f"/files/{other}", grant, body="x" if method == "PUT" else "") == 403
    without = f"Bearer {secure.issuer.grant('bob', read=('data/b',))}"
    for spelling in (composed, decomposed):
        assert await ask(secure, "GET", f"/files/{spelling}", without) == 403


@pytest.mark.parametrize("kind", BAD_GRANTS)
async def test_a_grant_that_is_no_good_is_refused_at_the_gateway(secure: Network, kind: str) -> None:
    """However it is sent, also for what needs none."""
    grant = BAD_GRANTS[kind](secure.issuer)
    for shown in (f"Bearer {grant}", basic(grant)):
        assert await ask(secure, "GET", "/files/secret.bin", shown) in (401, 403)
        assert await ask(secure, "PUT", "/files/data/evil", shown, body="evil") in (401, 403)


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:443", "peer-2.peer.minga", "127.0.0.1.evil.example", ""]
)
async def test_a_name_that_is_not_the_peers_is_refused(secure: Network, host: str) -> None:
    """With a grant, too: a page elsewhere may have made the browser's user sign in."""
    grant = basic(secure.issuer.grant("alice", read=("*",), publish=("*",)))
    for method in ("GET", "PUT", "DELETE"):
        body = "evil" if method == "PUT" else ""
        assert await ask(secure, method, "/files/data/tiny.txt", grant, host=host, body=body) == 403


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1", "https://peer-2.peer.minga"])
async def test_a_page_from_elsewhere_is_refused(secure: Network, origin: str) -> None:
    """The browser may know the password."""
    grant = basic(secure.issuer.grant("alice", read=("*",), publish=("*",)))
    for method, target in (("GET", "/files/secret.bin"), ("PUT", "/files/data/evil"), ("POST", "/uploads")):
        asked = f"Origin: {origin}\r\n"
        body = "evil" if method == "PUT" else ""
        assert await ask(secure, method, target, grant, more=asked, body=body) == 403, method
        asked += f"Access-Control-Request-Method: {method}\r\n"
        assert await ask(secure, "OPTIONS", target, more=asked) == 403, method


async def test_who_is_revoked_is_refused(secure: Network) -> None:
    """A grant by its id, within a few seconds."""
    grant = f"Bearer {secure.issuer.grant('alice', read=('*',), jti='lost')}"
    assert await ask(secure, "GET", "/files/secret.bin", grant) == 200
    secure.revoke("lost")
    try:
        async with asyncio.timeout(20):
            while await ask(secure, "GET", "/files/secret.bin", grant) != 403:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
    finally:
        secure.revoke()


async def test_the_sockets_are_the_owners_alone(secure: Network) -> None:
    """Who reaches them needs no grant."""
    path = secure.peer.control.with_suffix(".http")
    assert path.stat().st_mode & 0o077 == 0
    transport = httpx.AsyncHTTPTransport(uds=str(path))
    async with httpx.AsyncClient(transport=transport, base_url="http://peer") as client:
        assert (await client.get("/files/secret.bin")).status_code == 200
