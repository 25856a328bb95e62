"""Grants, join tokens, certificate requests and `authorization` of every kind: each is refused in so many words, or
means what its signer has signed; none is an error of ours."""

import base64
import json
import os
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import jwt
import pytest
import pytest_asyncio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from minga_authority.authority import Authority
from minga_authority.folder import Network as AuthorityNetwork
from minga_authority.folder import init
from minga_authority.terms import Terms
from minga_core.errors import MingaError
from minga_runtime.trust.callers import Callers, bearer_token
from minga_runtime.trust.joining import JoinToken
from minga_runtime.trust.key_sources import KeySource
from minga_runtime.trust.members import Member, Role
from tests.attack.attacker import Attacker
from tests.attack.network import Network, network
from tests.support.grants import Issuer, write_keys

from .test_tls import SEED, spoiled

pytestmark = [pytest.mark.asyncio(loop_scope="module")]

ROUNDS = 2000 if os.environ.get("HYPOTHESIS_PROFILE") == "random" else 150
OWN = Member("test", Role.LOCATOR, "locator")
RIGHTS: dict[str, Any] = {"read": ("data",), "publish": ("data/own",)}
CLAIMS = ("iss", "aud", "sub", "exp", "iat", "nbf", "jti", "minga", "role", "name", "hosts", "read", "uses", "ca")


def junk(rng: random.Random, depth: int = 0) -> Any:
    """Any value of JSON, and numbers that are none."""
    made: list[Callable[[], Any]] = [
        lambda: None,
        lambda: rng.choice((True, 0, -1, 2**63, 2**2000, 1e308, float("inf"), float("nan"), time.time() + 60)),
        lambda: rng.choice(("", "*", "data", "../x", "\x00", "\ud800", "test", "minga:test", "admin", "x" * 3000)),
        lambda: [junk(rng, depth + 1) for _ in range(rng.randrange(4))],
        lambda: {rng.choice(CLAIMS): junk(rng, depth + 1) for _ in range(rng.randrange(4))},
    ]
    return rng.choice(made[: 3 if depth > 3 else 5])()


def changed(rng: random.Random, claims: dict[str, Any]) -> dict[str, Any]:
    """Claims of which some are others, and some are away."""
    made = dict(claims)
    for name in rng.sample(CLAIMS, rng.randint(1, 3)):
        made[name] = junk(rng)
    for name in rng.sample(sorted(made), rng.randrange(2)):
        del made[name]
    return made


def encoded(value: Any) -> str:
    text = json.dumps(value, default=str)
    return base64.urlsafe_b64encode(text.encode("utf-8", "surrogatepass")).rstrip(b"=").decode()


def damaged(rng: random.Random, token: str) -> str:
    """A token that nobody has signed: cut, with other characters, another head, other claims, or parts exchanged."""
    head, claims, signature = token.split(".")
    header = {"alg": rng.choice(("none", "HS256", "RS256", "EdDSA", "", 7, None)), "kid": junk(rng), "crit": junk(rng)}
    kinds: list[Callable[[], str]] = [
        lambda: spoiled(rng, token.encode()).decode("latin-1"),
        lambda: f"{encoded(header)}.{claims}.{rng.choice((signature, '', 'AAAA'))}",
        lambda: f"{head}.{encoded(junk(rng))}.{signature}",
        lambda: f"{head}.{encoded(changed(rng, jwt.decode(token, options={'verify_signature': False})))}.{signature}",
        lambda: ".".join(rng.choice((head, claims, signature, "", "=", "é")) for _ in range(rng.randrange(6))),
    ]
    return rng.choice(kinds)()


async def test_grants_that_nobody_has_signed_give_no_rights(tmp_path: Path) -> None:
    """And those of a good key with any claims give what is in them, or are refused."""
    print(f"seed {SEED}")
    rng, issuer = random.Random(SEED), Issuer()
    keys = (KeySource("", str(write_keys(tmp_path / "keys", issuer))),)
    callers, good = Callers(OWN, keys), issuer.grant("bot", **RIGHTS)
    rights = (await callers.client(None, good)).rights
    signed = 0
    for _ in range(ROUNDS):
        with suppress(MingaError):
            got = await callers.client(None, bearer_token([f"Bearer {damaged(rng, good)}"]))
            assert got.rights == rights, "a grant was changed and is good"
        claims = changed(rng, issuer.claims("bot", **RIGHTS))
        try:
            given = (await callers.client(None, signed_by(issuer.key, issuer.key_id, claims))).rights
        except MingaError:
            continue
        signed += 1
        assert not given.publish.everything or "*" in claims["minga"]["publish"]
    assert signed, "none of them was good: the test is none"


def signed_by(key: Any, key_id: str, claims: Any) -> str:
    """A token of any claims, such as PyJWT itself would refuse to sign."""
    return jwt.api_jws.encode(json.dumps(claims).encode(), key, "EdDSA", headers={"kid": key_id})


def request() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def as_pem(rng: random.Random, der: bytes) -> str:
    body = base64.encodebytes(der).decode()
    label = rng.choice(("CERTIFICATE REQUEST", "CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST", "CERTIFICATE", "X"))
    return f"-----BEGIN {label}-----\n{body}-----END {label}-----\n"


async def test_no_token_and_no_request_but_good_ones_make_members(tmp_path: Path) -> None:
    """The joiner, who sees the token first, refuses what is none too."""
    print(f"seed {SEED}")
    rng, now = random.Random(SEED), time.time()
    authority = Authority(init(tmp_path / "ca", AuthorityNetwork("test", "https://ca:1"), now))
    terms = Terms(Role.PEER, publish=("data",), uses=0)
    key = authority.folder.keys().grant_keys[0][0]
    private = serialization.load_pem_private_key(key.pem, None)
    good, der = authority.create_token(terms, Authority(authority.folder).life), request()
    claims = jwt.decode(good, options={"verify_signature": False})
    for number in range(ROUNDS // 4):
        token, name = damaged(rng, good), f"evil-{number}"
        for attempt in (
            lambda token=token: JoinToken.parse(token),
            lambda token=token, name=name: _joined(authority, token, as_pem(rng, der), name, terms),
            lambda name=name: _joined(authority, good, as_pem(rng, spoiled(rng, der)), name, terms),
            lambda name=name: authority.join(signed_by(private, key.kid, changed(rng, claims)), as_pem(rng, der), name),
        ):
            with suppress(MingaError):
                attempt()


def _joined(authority: Authority, token: str, csr: str, name: str, terms: Terms) -> None:
    """A member of the terms that were signed, if one at all. Raises MingaError."""
    member = authority.join(token, csr, name)["member"]
    assert member == f"spiffe://test/{terms.role}/{name}"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def secure(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Network]:
    """A secure network with rights."""
    async with network(tmp_path_factory.mktemp("trust"), secure=True, rights=True, peer_count=1) as made:
        yield made


@pytest.mark.redis
@pytest.mark.e2e
async def test_any_authorization_is_answered_and_none_shows_what_it_may_not(secure: Network) -> None:
    """Over REST: 4xx, or what the good grant may read."""
    print(f"seed {SEED}")
    rng, good = random.Random(SEED), secure.issuer.grant("bot", read=("data",))
    who = Attacker(secure.authority.pem)
    for _ in range(ROUNDS // 3):
        scheme = rng.choice(("Bearer ", "bearer ", "Basic ", "", "Bearer", "Bearer\t", "DPoP "))
        sent = (scheme + damaged(rng, good)).encode("utf-8", "replace")
        head = b"GET /v1/files/secret.bin HTTP/1.1\r\nHost: l\r\nAuthorization: " + sent + b"\r\n\r\n"
        answer = await who.http(secure.story.net.locator.address, head)
        assert answer.startswith(b"HTTP/1.1 4"), (answer, sent)
    await secure.is_as_it_was()
    log = secure.story.net.locator.process.log_path.read_text()
    assert "Traceback" not in log
