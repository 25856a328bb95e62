"""Attacks on the authority's port, on those who join there, and on the files that joining and `minga ca init` write."""

import asyncio
import json
import os
import ssl
import stat
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
import pytest_asyncio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from minga_authority.authority import Authority
from minga_authority.certificates import moment
from minga_authority.folder import AuthorityFolder, Network, init
from minga_authority.server import MAX_CONNECTIONS
from minga_authority.terms import Terms
from minga_cli.localauthority import LocalAuthority
from minga_cli.localprocess import LocalProcess, module_command
from minga_cli.localservice import LocalService
from minga_runtime.trust.joining import JoinToken, join
from minga_runtime.trust.members import Role
from tests.e2e.conftest import eventually
from tests.support.grants import flipped

from .attacker import LIMIT_SECONDS, Attacker
from .command import minga
from .victim import HOST

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.e2e]

HOUR = timedelta(hours=1)
PEER = Terms(Role.PEER, read=("*",), publish=("data",), uses=1)
LIVING = "living"
"""A member that no attack may replace, renew or revoke."""


@dataclass
class Authorities:
    """An authority that runs, and its folder in the hands of who runs it."""

    port: int
    folder: Path
    own: Authority

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def ca(self) -> bytes:
        return (self.folder / "ca.crt").read_bytes()

    def token(self, terms: Terms = PEER, life: timedelta = HOUR) -> str:
        return self.own.create_token(terms, life)

    def certificate(self, folder: Path, uri: str, *, ago: timedelta = timedelta(), key: Any = None) -> Attacker:
        """Somebody with a certificate that the CA has signed, and that may have ended. key: made unless given."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        ca = self.own.folder.keys().signing_ca(time.time())
        made = ca.issue(key.public_key(), uri, [], moment(time.time()) - ago, HOUR, serves=False)
        pem = serialization.Encoding.PEM
        form, cipher = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        folder.mkdir()
        (folder / "tls.crt").write_bytes(made.public_bytes(pem))
        (folder / "tls.key").write_bytes(key.private_bytes(pem, form, cipher))
        return Attacker(self.ca, folder)

    async def post(self, who: Attacker, path: str, body: Any) -> httpx.Response:
        async with httpx.AsyncClient(verify=who.context() or False, trust_env=False, timeout=LIMIT_SECONDS) as client:
            return await client.post(f"{self.url}{path}", json=body)

    async def join(self, token: str, name: str, csr: str = "") -> httpx.Response:
        return await self.post(Attacker(self.ca), "/v1/join", {"token": token, "csr": csr or request(), "name": name})

    def members(self) -> dict[str, tuple[str, bool]]:
        """Who is one, under which terms, and whether it is revoked."""
        return {row.uri: (row.terms.to_json(), row.revoked is not None) for row in self.own.store.members()}

    def secrets(self) -> dict[str, bytes]:
        """What is in the folder but for the database, and that in mode 0600."""
        files = [path for path in self.folder.iterdir() if not path.name.startswith("authority.db")]
        assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
        return {path.name: path.read_bytes() for path in files}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def founded(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Authorities]:
    """An authority with one member, LIVING."""
    place = tmp_path_factory.mktemp("authority")
    folder, port_file = place / "ca", place / "port"
    arguments = ("--authority-dir", str(folder), "--listen", "127.0.0.1:0", "--port-file", str(port_file))
    arguments += ("--log-level", "debug", "--audit", str(place / "audit"))
    process = LocalProcess("authority", lambda: module_command("minga_authority", "serve", *arguments), place / "log")
    service = LocalService(process, port_file)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(process.stop, timedelta(seconds=5))
        await LocalAuthority(service, folder, place / "members").start("127.0.0.1")
        port = int(service.address.rpartition(":")[2])
        made = Authorities(port, folder, Authority(AuthorityFolder(folder)))
        network = Network("local", made.url)
        token = made.own.create_token(PEER, HOUR, network)
        await join(JoinToken.parse(token), place / LIVING, LIVING)
        yield made
        logs = "".join((place / name).read_text() for name in ("log", "audit"))
        assert '"reason":"token_invalid"' in logs
        secrets = [
            token,
            (place / LIVING / "grant.jwt").read_text(),
            made.secrets()["publication.key"].decode().strip(),
        ]
        assert not any(secret in logs for secret in (*secrets, "PRIVATE KEY"))


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def nothing_else_changed(founded: Authorities) -> AsyncIterator[set[str]]:
    """Members that a test makes are named in here; no other is made, and none is changed, nor any key."""
    members, secrets = founded.members(), founded.secrets()
    made: set[str] = set()
    yield made
    now = founded.members()
    assert {uri: terms for uri, terms in now.items() if uri not in made} == members
    assert founded.secrets() == secrets
    assert (await asyncio.to_thread(httpx.get, f"{founded.url}/readyz", verify=False)).status_code == 200


def request(key: Any = None, *names: x509.GeneralName, ca: bool = False) -> str:
    """A certificate request. key: made unless given."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True)
    if ca:
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=9), critical=True)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def bad_tokens(net: Authorities, folder: Path) -> dict[str, str]:
    good, key = net.token(), net.own.folder.keys().grant_keys[0][0]
    claims = jwt.decode(good, options={"verify_signature": False})
    boss = jwt.encode(claims | {"role": "admin"}, None, "none").split(".")[1]
    head, _, signature = good.split(".")
    other = Authority(init(folder / "other", Network("local", net.url), time.time()))
    void = net.token()
    return {
        "none": "",
        **{f"a bit of part {part}": flipped(good, part) for part in range(3)},
        "another role, the same signature": f"{head}.{boss}.{signature}",
        "alg none": jwt.encode(claims, None, "none", headers={"kid": key.kid}),
        "HS256 with the public key": jwt.encode(claims, key.jwk["x"] * 2, "HS256", headers={"kid": key.kid}),
        "expired": net.token(life=-timedelta(seconds=1)),
        "of another authority": other.create_token(PEER, HOUR),
        "a bearer's grant": net.own.grant("curl", ["*"], ["*"], HOUR),
        "twice": f"{void}.{void}",
    }


async def test_tokens_that_are_no_good_make_no_member(founded: Authorities, tmp_path: Path) -> None:
    """Each is refused at once, in words that say why."""
    for kind, token in bad_tokens(founded, tmp_path).items():
        answer = await founded.join(token, "evil")
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated"), kind
        assert "the token is not good: " in answer.json()["detail"]


async def test_a_token_of_one_use_makes_one_member_however_many_come_at_once(
    founded: Authorities, nothing_else_changed: set[str]
) -> None:
    token = founded.token()
    answers = await asyncio.gather(*(founded.join(token, f"twin-{number}") for number in range(20)))
    got = [answer.json()["member"] for answer in answers if answer.is_success]
    assert len(got) == 1
    nothing_else_changed.update(got)
    late = await founded.join(token, "late")
    assert (late.status_code, late.json()["detail"].partition(" (")[0]) == (401, "the token is used up")


BAD_REQUESTS = {
    "RSA of 1,024 bits": lambda: request(rsa.generate_private_key(65537, 1024)),
    "RSA of 3,072 bits": lambda: request(rsa.generate_private_key(65537, 3072)),
    "P-192": lambda: request(ec.generate_private_key(ec.SECP192R1())),
    "10,000 names": lambda: request(None, *(x509.DNSName(f"{number}.example") for number in range(2_000))),
    "no request": lambda: "-----BEGIN CERTIFICATE REQUEST-----\nMIIB\n-----END CERTIFICATE REQUEST-----\n",
    "signed by nobody": lambda: "".join(
        line if line.startswith("-") else line[::-1] for line in request().splitlines(keepends=True)
    ),
}


async def test_requests_for_weak_keys_get_nothing_and_use_nothing_up(
    founded: Authorities, nothing_else_changed: set[str]
) -> None:
    token = founded.token()
    for kind, make in BAD_REQUESTS.items():
        answer = await founded.join(token, "weak", await asyncio.to_thread(make))
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_argument"), kind
    nothing_else_changed.add("spiffe://local/peer/weak")
    assert (await founded.join(token, "weak")).is_success


async def test_a_request_with_names_of_others_gets_its_own_alone(
    founded: Authorities, nothing_else_changed: set[str]
) -> None:
    """Of role, names and kind of certificate the token decides; a token for peers makes no locator and no CA."""
    wanted = [x509.UniformResourceIdentifier(f"spiffe://local/{who}") for who in ("locator/locator", "admin/root")]
    csr = request(None, *wanted, x509.DNSName("authority.minga"), x509.DNSName("localhost"), ca=True)
    nothing_else_changed.add("spiffe://local/peer/climber")
    answer = await founded.join(founded.token(), "climber", csr)
    made = x509.load_pem_x509_certificate(answer.json()["certificate"].encode())
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [each.value for each in names] == ["spiffe://local/peer/climber", "climber.peer.minga"]
    assert not made.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert not made.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    assert "publication_key" not in answer.json()


@pytest.mark.parametrize("name", [LIVING, LIVING.upper(), "../x", "spiffe://local/admin/root", "a/../b", "", "x" * 200])
async def test_names_of_the_living_and_of_nobody_are_not_given(founded: Authorities, name: str) -> None:
    answer = await founded.join(founded.token(), name)
    taken = name.lower() == LIVING
    assert (answer.status_code, answer.json()["code"]) == ((409, "name_taken") if taken else (400, "invalid_argument"))


async def test_nobody_renews_for_another(founded: Authorities, tmp_path: Path, nothing_else_changed: set[str]) -> None:
    """Without a certificate, with one of another CA, one that has ended, one that nobody joined with, or of who is
    revoked; nor does a certificate renew another key."""
    living = f"spiffe://local/peer/{LIVING}"
    key = ec.generate_private_key(ec.SECP256R1())
    twin = Authority(init(tmp_path / "twin", Network("local", founded.url), time.time()))
    foreign = Authorities(founded.port, tmp_path / "twin", twin).certificate(tmp_path / "foreign", living)
    refusals = {
        "none": await outcome(founded, Attacker(founded.ca), request()),
        "another key of that name": await outcome(
            founded, founded.certificate(tmp_path / "1", living, key=key), request(key)
        ),
        "for another key": await outcome(founded, founded.certificate(tmp_path / "2", living, key=key), request()),
        "nobody's": await outcome(
            founded, founded.certificate(tmp_path / "3", "spiffe://local/peer/x", key=key), request(key)
        ),
        "ended": await outcome(founded, founded.certificate(tmp_path / "4", living, ago=2 * HOUR), request()),
        "another CA": await outcome(founded, Attacker(founded.ca, foreign.folder), request()),
    }
    assert refusals == {
        "none": 401,
        "another key of that name": 401,
        "for another key": 400,
        "nobody's": 401,
        "ended": "handshake",
        "another CA": "handshake",
    }
    uri = "spiffe://local/peer/revoked"
    nothing_else_changed.add(uri)
    assert (await founded.join(founded.token(), "revoked", request(key))).is_success
    revoked = founded.certificate(tmp_path / "5", uri, key=key)
    assert await outcome(founded, revoked, request(key)) == 200
    founded.own.revoke("revoked")
    assert await outcome(founded, revoked, request(key)) == 403


async def outcome(net: Authorities, who: Attacker, csr: str) -> object:
    """The status of a renewal, or that its handshake failed."""
    try:
        return (await net.post(who, "/v1/renew", {"csr": csr})).status_code
    except httpx.TransportError:
        return "handshake"


HEAD = b"POST /v1/join HTTP/1.1\r\nContent-Length: "
RAW = {
    "a body of a gigabyte": (HEAD + b"1073741824\r\n\r\n", b"413"),
    "a body of 200 KB": (HEAD + b"200000\r\n\r\n" + b"[" * 200_000, b"413"),
    "nested a thousandfold": (HEAD + b"40000\r\n\r\n" + b"[" * 40_000, b"422"),
    "a head of 100 KB": (b"GET /livez HTTP/1.1\r\nA: " + b"a" * 100_000 + b"\r\n\r\n", b"431"),
    "two lengths": (HEAD + b"2\r\nContent-Length: 3\r\n\r\n{}", b"400"),
}


@pytest.mark.parametrize("kind", RAW)
async def test_bodies_and_heads_without_end_are_refused_unread(founded: Authorities, kind: str) -> None:
    """At most the answer is lost, where the connection ended while more was sent."""
    sent, status = RAW[kind]
    async with connected(founded.port, Attacker(founded.ca).context()) as (reader, writer):
        got = b""
        with suppress(ConnectionError):
            writer.write(sent)
            got = await reader.read()
    assert got == b"" or got.split(b" ")[1] == status


async def test_many_slow_connections_of_one_host_keep_nobody_out(
    founded: Authorities, tmp_path: Path, nothing_else_changed: set[str]
) -> None:
    """Silent ones, ones in the middle of the handshake, and bodies that never come: half of the authority's connections
    at most."""
    nothing_else_changed.add("spiffe://local/peer/patient")
    network = Network("local", founded.url)
    token = JoinToken.parse(founded.own.create_token(PEER, HOUR, network))
    async with AsyncExitStack() as stack:
        for _ in range(20):
            _, writer = await stack.enter_async_context(connected(founded.port, Attacker(founded.ca).context()))
            writer.write(HEAD + b"1000\r\n\r\n{")
        ends = []
        for number in range(600):
            reader, writer = await stack.enter_async_context(connected(founded.port, None))
            if number % 2:
                writer.write(b"\x16\x03\x01\x02")
            ends.append(asyncio.create_task(reader.read()))
            stack.callback(ends[-1].cancel)

        async def others_are_closed() -> bool:
            return sum(end.done() for end in ends) >= 620 - MAX_CONNECTIONS // 2

        await eventually(others_are_closed, "what is above the host's bound is closed", LIMIT_SECONDS)
        assert not all(end.done() for end in ends)
        await join(token, tmp_path / "patient", "patient")


@asynccontextmanager
async def connected(
    port: int, context: ssl.SSLContext | None
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """From another host than the tests' own."""
    async with asyncio.timeout(LIMIT_SECONDS * 4):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, local_addr=(HOST, 0))
        try:
            yield reader, writer
        finally:
            writer.transport.abort()


async def test_a_false_authority_gets_no_token_and_makes_no_member(founded: Authorities, tmp_path: Path) -> None:
    """Somebody at the authority's address, who shows even its certificate of CA, or one of its own of that name."""
    twin = Authority(init(tmp_path / "twin", Network("local", founded.url), time.time()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*twin.write_server_files(time.time()))
    sent: list[bytes] = []
    shown = [founded.ca.decode(), (tmp_path / "twin" / "ca.crt").read_text(), "no certificate"]

    async def deceive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sent.append(await reader.readuntil(b"\r\n\r\n"))
        body = json.dumps({"ca": shown[0], "grant_keys": "{}", "revoked": []}).encode()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        writer.close()

    async with await asyncio.start_server(deceive, "127.0.0.1", 0, ssl=context) as server:
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        token = founded.own.create_token(PEER, HOUR, Network("local", url))
        while shown:
            ended = await asyncio.to_thread(minga, "join", token, "--dir", "own", "--name", "x", folder=tmp_path)
            assert ended.returncode != 0, ended.stdout
            assert "Traceback" not in ended.stderr
            assert sorted(path.name for path in (tmp_path / "own").iterdir()) == ["key.pem"]
            shown.pop(0)
    assert {head.split(b" ")[1] for head in sent} == {b"/v1/trust"}
    assert not any(token.encode() in head for head in sent)


async def test_folders_of_others_get_no_key(founded: Authorities, tmp_path: Path) -> None:
    """Neither a key nor an authority is made where another user could exchange it."""
    if os.getuid() != 0:
        pytest.skip("only root gives folders to others")
    theirs = tmp_path / "theirs"
    theirs.mkdir(mode=0o777)
    os.chown(theirs, 65534, 65534)
    (tmp_path / "link").symlink_to(theirs)
    for place in ("theirs", "link"):
        ended = await asyncio.to_thread(minga, "join", founded.token(), "--dir", place, "--name", "x", folder=tmp_path)
        assert ended.returncode != 0
        assert "belongs to another user" in ended.stderr
        assert list(theirs.iterdir()) == []
    made = await asyncio.to_thread(minga, "ca", "init", "--dir", "link", folder=tmp_path)
    assert made.returncode != 0
    assert list(theirs.iterdir()) == []


async def test_what_joining_writes_is_for_its_owner_alone(
    founded: Authorities, tmp_path: Path, nothing_else_changed: set[str]
) -> None:
    """Also in a folder that others could write to, and over links to other files, which stay as they are."""
    nothing_else_changed.add("spiffe://local/peer/tidy")
    folder, elsewhere = tmp_path / "own", tmp_path / "elsewhere"
    folder.mkdir()
    folder.chmod(0o777)
    elsewhere.write_text("somebody's\n")
    for name in ("cert.pem", "grant.jwt", "ca.pem"):
        (folder / name).symlink_to(elsewhere)
    token = founded.own.create_token(PEER, HOUR, Network("local", founded.url))
    ended = await asyncio.to_thread(minga, "join", token, "--dir", "own", "--name", "tidy", folder=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert elsewhere.read_text() == "somebody's\n"
    assert stat.S_IMODE(folder.stat().st_mode) & 0o022 == 0
    files = list(folder.iterdir())
    assert not any(path.is_symlink() for path in files)
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert stat.S_IMODE(founded.folder.stat().st_mode) == 0o700
