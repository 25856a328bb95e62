"""Joining and renewing, without HTTP: what a token is good for, and what nobody gets by a request."""

import base64
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from minga_authority.authority import Authority
from minga_authority.folder import Network, init
from minga_authority.terms import Terms
from minga_core.clock import ManualClock
from minga_core.errors import (
    AlreadyRunningError,
    InvalidArgumentError,
    MingaError,
    NameTakenError,
    PermissionDeniedError,
    UnauthenticatedError,
)
from minga_runtime.trust.members import Role

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
PEERS = Terms(Role.PEER, read=("*",), publish=("data",), uses=5)


@dataclass
class Joiner:
    """Somebody with a key."""

    key: Any = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    def csr(self, *names: x509.GeneralName, signed_by: Any = None) -> str:
        builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
            builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        algorithm = None if isinstance(self.key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
        return builder.sign(signed_by or self.key, algorithm).public_bytes(serialization.Encoding.PEM).decode()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def authority(tmp_path: Path, clock: ManualClock) -> Authority:
    return make(tmp_path / "ca", clock, "test")


def make(path: Path, clock: ManualClock, network: str) -> Authority:
    return Authority(init(path, Network(network, "https://ca:50050"), clock.wall()), clock=clock)


def certificate(answer: dict[str, Any]) -> x509.Certificate:
    return x509.load_pem_x509_certificate(answer["certificate"].encode())


def names(answer: dict[str, Any]) -> tuple[list[str], list[str]]:
    """URIs and DNS names in a certificate."""
    found = certificate(answer).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    uris = found.get_values_for_type(x509.UniformResourceIdentifier)
    return uris, found.get_values_for_type(x509.DNSName)


def test_a_token_makes_a_member(authority: Authority, clock: ManualClock) -> None:
    """Its certificate is signed by the CA, names it, and lasts a day; its grant has the token's rights."""
    joiner = Joiner()
    answer = authority.join(authority.create_token(PEERS, HOUR), joiner.csr(), "alpha")
    made, (ca,) = certificate(answer), x509.load_pem_x509_certificates(answer["ca"].encode())
    made.verify_directly_issued_by(ca)
    assert names(answer) == (["spiffe://test/peer/alpha"], ["alpha.peer.minga"])
    assert made.public_key() == joiner.key.public_key()
    assert made.not_valid_after_utc.timestamp() == clock.wall() + DAY.total_seconds()
    assert not made.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    (key,) = json.loads(answer["grant_keys"])["keys"]
    claims = jwt.decode(
        answer["grant"],
        jwt.PyJWK(key).key,
        ["EdDSA"],
        audience="test",
        options={"verify_exp": False, "verify_iat": False},
    )
    assert claims["sub"] == "spiffe://test/peer/alpha"
    assert claims["minga"] == {"read": ["*"], "publish": ["data"], "admin": False}
    assert "publication_key" not in answer


def test_registry_and_locator_get_their_hosts_and_the_publication_key(authority: Authority) -> None:
    terms = Terms(Role.REGISTRY, "registry", ("registry.example", "10.0.0.1"))
    answer = authority.join(authority.create_token(terms, HOUR), Joiner().csr(), "")
    assert names(answer) == (["spiffe://test/registry/registry"], ["registry.example"])
    assert bytes.fromhex(answer["publication_key"].strip())


def test_a_client_serves_nobody(authority: Authority) -> None:
    """A stolen certificate of a command cannot stand for the authority, a peer or a locator."""
    answer = authority.join(authority.create_token(Terms(Role.CLIENT), HOUR), Joiner().csr(), "someone")
    usages = certificate(answer).extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usages) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert names(answer)[1] == []


def test_what_a_request_asks_for_beside_its_key_is_ignored(authority: Authority) -> None:
    wanted = x509.UniformResourceIdentifier("spiffe://test/admin/root"), x509.DNSName("authority.minga")
    answer = authority.join(authority.create_token(PEERS, HOUR), Joiner().csr(*wanted), "alpha")
    assert names(answer) == (["spiffe://test/peer/alpha"], ["alpha.peer.minga"])
    assert not certificate(answer).extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def forged() -> str:
    """A request for one key, signed by another: bytes of the public key are exchanged."""
    mine, other = Joiner(), Joiner()

    def point(joiner: Joiner) -> bytes:
        encoding, form = serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
        return joiner.key.public_key().public_bytes(encoding, form)

    der = x509.load_pem_x509_csr(mine.csr().encode()).public_bytes(serialization.Encoding.DER)
    changed = x509.load_der_x509_csr(der.replace(point(mine), point(other)))
    return changed.public_bytes(serialization.Encoding.PEM).decode()


def of_a_later_version() -> str:
    """As PKCS #10 would be if there were another version of it."""
    der = x509.load_pem_x509_csr(Joiner().csr().encode()).public_bytes(serialization.Encoding.DER)
    body = base64.encodebytes(der.replace(b"\x02\x01\x00", b"\x02\x01\x04", 1)).decode()
    return f"-----BEGIN CERTIFICATE REQUEST-----\n{body}-----END CERTIFICATE REQUEST-----\n"


BAD_REQUESTS = {
    "empty": lambda: "",
    "no PEM": lambda: "certificate, please",
    "not ASCII": lambda: "-----BEGIN CERTIFICATE REQUEST-----\n\u0000ü\n-----END CERTIFICATE REQUEST-----\n",
    "huge": lambda: Joiner().csr() + " " * 100_000,
    "huge names": lambda: Joiner().csr(*(x509.DNSName(f"{number}.example") for number in range(3_000))),
    "RSA": lambda: Joiner(rsa.generate_private_key(65537, 2048)).csr(),
    "Ed25519": lambda: Joiner(ed25519.Ed25519PrivateKey.generate()).csr(),
    "another curve": lambda: Joiner(ec.generate_private_key(ec.SECP256K1())).csr(),
    "signed by another key": forged,
    "of a later version": of_a_later_version,
    "a certificate": lambda: "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
}


@pytest.mark.parametrize("kind", BAD_REQUESTS)
def test_a_bad_request_is_refused_and_costs_no_use(authority: Authority, kind: str) -> None:
    token = authority.create_token(replace(PEERS, uses=1), HOUR)
    with pytest.raises(InvalidArgumentError):
        authority.join(token, BAD_REQUESTS[kind](), "alpha")
    assert authority.join(token, Joiner().csr(), "alpha")["member"] == "spiffe://test/peer/alpha"


BAD_NAMES = ("", "-x", "a/b", "../x", "a b", "ä", "x" * 129, "a\n", "spiffe://test/admin/x")


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_bad_name_is_refused(authority: Authority, name: str) -> None:
    with pytest.raises(InvalidArgumentError):
        authority.join(authority.create_token(PEERS, HOUR), Joiner().csr(), name)


def bad_tokens(authority: Authority, clock: ManualClock, folder: Path) -> dict[str, str]:
    good = authority.create_token(PEERS, HOUR)
    head, payload, signature = good.split(".")
    claims = jwt.decode(good, options={"verify_signature": False})
    header = {"kid": jwt.get_unverified_header(good)["kid"]}
    member = authority.join(authority.create_token(PEERS, HOUR), Joiner().csr(), "before")
    key = authority.folder.keys().grant_keys[0][0]
    return {
        "empty": "",
        "no token": "abc",
        "dots": "..",
        "cut off": good[:-10],
        "another signature": f"{head}.{payload}.{'A' * len(signature)}",
        "no algorithm": jwt.encode(claims, None, "none", headers=header),
        "the public key as a secret": jwt.encode(claims, key.jwk["x"] * 2, "HS256", headers=header),
        "another network's": make(folder / "other", clock, "other").create_token(PEERS, HOUR),
        "another CA of that name": make(folder / "twin", clock, "test").create_token(PEERS, HOUR),
        "a grant": member["grant"],
        "a bearer's grant": authority.grant("curl", ["*"], ["*"], HOUR),
        "a role that there is not": key.sign(claims | {"role": "boss", "jti": "1"}),
        "no end": key.sign({name: value for name, value in claims.items() if name != "exp"}),
        "huge": good + "A" * 100_000,
    }


def test_only_a_good_token_makes_members(authority: Authority, clock: ManualClock, tmp_path: Path) -> None:
    for kind, token in bad_tokens(authority, clock, tmp_path).items():
        with pytest.raises((UnauthenticatedError, InvalidArgumentError)):
            pytest.fail(f"{kind}: {authority.join(token, Joiner().csr(), 'alpha')['member']}")
    assert [row.uri for row in authority.store.members()] == ["spiffe://test/peer/before"]


@pytest.mark.parametrize("cut", [slice(1, None), slice(None, -1)])
def test_who_pasted_a_part_of_a_token_is_told_so(authority: Authority, cut: slice) -> None:
    token = authority.create_token(PEERS, HOUR)
    with pytest.raises(UnauthenticatedError, match="it is not what was printed: copy all of it"):
        authority.join(token[cut], Joiner().csr(), "alpha")


def test_a_token_ends(authority: Authority, clock: ManualClock) -> None:
    token = authority.create_token(PEERS, HOUR)
    clock.advance(HOUR.total_seconds())
    with pytest.raises(UnauthenticatedError, match="expired"):
        authority.join(token, Joiner().csr(), "alpha")


def test_the_uses_of_a_token_are_counted_under_concurrency(authority: Authority) -> None:
    """Thirty at once, for five uses."""
    token = authority.create_token(PEERS, HOUR)

    def attempt(number: int) -> bool:
        try:
            return bool(authority.join(token, Joiner().csr(), f"peer-{number}"))
        except UnauthenticatedError:
            return False

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(attempt, range(30))) == 5
    with pytest.raises(UnauthenticatedError, match="used up"):
        authority.join(token, Joiner().csr(), "late")
    assert len(authority.store.members()) == 5
    assert authority.store.tokens(0) == []


def test_a_lost_answer_costs_no_use(authority: Authority) -> None:
    token, joiner = authority.create_token(replace(PEERS, uses=1), HOUR), Joiner()
    for _ in range(3):
        authority.join(token, joiner.csr(), "alpha")
    with pytest.raises(UnauthenticatedError):
        authority.join(token, joiner.csr(), "beta")


def test_a_name_that_somebody_has_is_not_given_again(authority: Authority, clock: ManualClock) -> None:
    """In no spelling: DNS names, which peers are checked by, know no case. Another role is another member."""
    authority.join(authority.create_token(PEERS, HOUR), Joiner().csr(), "alpha")
    token = authority.create_token(PEERS, 3 * DAY)
    for name in ("alpha", "Alpha", "ALPHA"):
        with pytest.raises(NameTakenError):
            authority.join(token, Joiner().csr(), name)
    client = authority.create_token(Terms(Role.CLIENT), HOUR)
    assert authority.join(client, Joiner().csr(), "alpha")["member"] == "spiffe://test/client/alpha"
    clock.advance(DAY.total_seconds())
    assert authority.join(token, Joiner().csr(), "Alpha")["member"] == "spiffe://test/peer/Alpha"


def test_a_token_for_one_name_is_for_no_other(authority: Authority) -> None:
    token = authority.create_token(replace(PEERS, name="alpha"), HOUR)
    with pytest.raises(InvalidArgumentError, match="peer alpha, not for 'beta'"):
        authority.join(token, Joiner().csr(), "beta")
    assert authority.join(token, Joiner().csr(), "")["member"] == "spiffe://test/peer/alpha"


def test_a_member_renews_with_its_own_key_alone(authority: Authority, clock: ManualClock) -> None:
    joiner, thief = Joiner(), Joiner()
    uri = authority.join(authority.create_token(PEERS, HOUR), joiner.csr(), "alpha")["member"]
    clock.advance(1000)
    answer = authority.renew(uri, joiner.key.public_key(), joiner.csr())
    assert names(answer)[0] == [uri]
    assert certificate(answer).not_valid_after_utc.timestamp() == clock.wall() + DAY.total_seconds()
    with pytest.raises(InvalidArgumentError):
        authority.renew(uri, joiner.key.public_key(), thief.csr())
    with pytest.raises(UnauthenticatedError):
        authority.renew(uri, thief.key.public_key(), thief.csr())
    with pytest.raises(UnauthenticatedError):
        authority.renew("spiffe://test/peer/nobody", joiner.key.public_key(), joiner.csr())


def test_who_is_revoked_renews_no_more_and_does_not_come_back(authority: Authority, clock: ManualClock) -> None:
    """Its token is void as well, for it could be anybody else with that."""
    joiner, token = Joiner(), authority.create_token(PEERS, 9 * DAY)
    uri = authority.join(token, joiner.csr(), "alpha")["member"]
    assert authority.revoke("alpha") == [uri]
    assert authority.trust()["revoked"] == [uri]
    with pytest.raises(PermissionDeniedError, match="has been revoked"):
        authority.renew(uri, joiner.key.public_key(), joiner.csr())
    fresh = authority.create_token(PEERS, 9 * DAY)
    for who in (joiner, Joiner()):
        with pytest.raises(UnauthenticatedError, match="somebody who joined with it was revoked"):
            authority.join(token, who.csr(), "beta")
        with pytest.raises(PermissionDeniedError):
            authority.join(fresh, who.csr(), "alpha")
    clock.advance(2 * DAY.total_seconds())
    assert authority.trust()["revoked"] == [], "its certificate has ended"
    assert authority.join(fresh, Joiner().csr(), "alpha")["member"] == uri


def test_a_bearers_grant_is_revoked_by_its_subject(authority: Authority) -> None:
    jti = jwt.decode(authority.grant("curl", ["*"], [], HOUR), options={"verify_signature": False})["jti"]
    assert authority.revoke("curl") == [jti]
    assert authority.trust()["revoked"] == [jti]


def test_nobody_bears_the_grant_of_a_member(authority: Authority) -> None:
    with pytest.raises(InvalidArgumentError):
        authority.grant("spiffe://test/peer/alpha", ["*"], ["*"], HOUR)


@pytest.mark.parametrize(
    "terms",
    [
        {"role": Role.REGISTRY},
        {"role": Role.REGISTRY, "hosts": ("authority.minga",)},
        {"role": Role.LOCATOR, "hosts": ("peer-1.peer.minga",)},
        {"role": Role.LOCATOR, "hosts": ("*.example",)},
        {"role": Role.LOCATOR, "hosts": ("a" * 300,)},
        {"role": Role.PEER, "hosts": ("host.example",)},
        {"role": Role.PEER, "read": ("../x",)},
        {"role": Role.PEER, "publish": ("/etc",)},
        {"role": Role.PEER, "name": "a/b"},
        {"role": Role.PEER, "uses": -1},
    ],
)
def test_terms_that_nobody_can_have_are_refused(terms: Any) -> None:
    with pytest.raises(MingaError):
        Terms(**terms)


def test_an_authority_is_never_overwritten(tmp_path: Path, clock: ManualClock) -> None:
    make(tmp_path / "ca", clock, "test")
    before = {path: path.read_bytes() for path in (tmp_path / "ca").iterdir()}
    with pytest.raises(AlreadyRunningError):
        make(tmp_path / "ca", clock, "test")
    assert {path: path.read_bytes() for path in (tmp_path / "ca").iterdir()} == before
    assert list(tmp_path.iterdir()) == [tmp_path / "ca"]
    assert {path.stat().st_mode & 0o777 for path in before} == {0o600}
    assert (tmp_path / "ca").stat().st_mode & 0o777 == 0o700


def test_a_new_ca_signs_once_members_know_it_and_the_old_one_ends_with_what_it_signed(
    authority: Authority, clock: ManualClock
) -> None:
    joiner, token = Joiner(), authority.create_token(PEERS, 9 * DAY)
    first = authority.join(token, joiner.csr(), "alpha")
    authority.folder.add_ca(clock.wall())
    authority.folder.add_grant_key(clock.wall())
    kid = jwt.get_unverified_header(first["grant"])["kid"]

    def renewed() -> tuple[x509.Certificate, list[x509.Certificate], bool, int]:
        answer = authority.renew(first["member"], joiner.key.public_key(), joiner.csr())
        cas = x509.load_pem_x509_certificates(answer["ca"].encode())
        old_grant_key = jwt.get_unverified_header(answer["grant"])["kid"] == kid
        return certificate(answer), cas, old_grant_key, len(json.loads(answer["grant_keys"])["keys"])

    made, (new, old), old_grant_key, keys = renewed()
    made.verify_directly_issued_by(old)
    assert (old_grant_key, keys) == (True, 2)
    clock.advance(HOUR.total_seconds())
    made, cas, old_grant_key, keys = renewed()
    made.verify_directly_issued_by(new)
    assert (cas, old_grant_key, keys) == ([new, old], False, 2)
    assert authority.join(token, Joiner().csr(), "beta"), "tokens of the old key are good until they end"
    clock.advance(2 * DAY.total_seconds())
    made, cas, _, keys = renewed()
    made.verify_directly_issued_by(new)
    assert (cas, keys) == ([new], 1)
