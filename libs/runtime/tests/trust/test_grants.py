import base64
import json
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minga_core.errors import MingaError, SettingsError, UnauthenticatedError, UnavailableError
from minga_runtime.trust import grant_keys, watched_file
from minga_runtime.trust.callers import Callers, bearer_token
from minga_runtime.trust.grant_keys import GrantKeys
from minga_runtime.trust.grants import Grants
from minga_runtime.trust.key_sources import KeySource, parse_sources
from minga_runtime.trust.members import Member, Role
from minga_runtime.trust.own_grant import OwnGrant
from minga_runtime.trust.rights import Rights, parse_rights
from tests.support.grants import Issuer, key_set, write_keys

DAY = 86_400
OTHERS = "https://accounts.example"
SOURCE = KeySource("", "https://keys.example/jwks")
ISSUER = Issuer()


@pytest.fixture(autouse=True)
def _looked_at_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watched_file, "LOOK_SECONDS", 0.0)


def grants_by(path: Path, *issuers: Issuer, issuer: str = "", clock_ahead: float = 0.0) -> Grants:
    keys = GrantKeys((KeySource(issuer, str(write_keys(path, *issuers))),), "minga:test")
    return Grants(keys, "test", lambda: time.time() + clock_ahead)


async def refusal(grants: Grants, token: str) -> str:
    with pytest.raises(UnauthenticatedError) as caught:
        await grants.verify(token)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("algorithm", ["EdDSA", "ES256", "RS256"])
async def test_a_grant_says_who_may_do_what(tmp_path: Path, algorithm: str) -> None:
    issuer = Issuer(algorithm=algorithm)
    grants = grants_by(tmp_path / "keys", issuer)
    token = issuer.grant("team-a", read=("*",), publish=("data/", "ci"), aud=["x", "test"], jti="7")
    for _ in range(2):
        grant = await grants.verify(token)
        assert (grant.subject, grant.grant_id, grant.of_member) == ("team-a", "7", False)
        assert grant.rights == parse_rights("read=*;publish=data,ci")


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"exp": None}, "`exp` is not there"),
        ({"exp": "tomorrow"}, "`exp` is not there, or not a time"),
        ({"exp": True}, "`exp`"),
        ({"exp": 1e300}, "`exp`"),
        ({"exp": int(time.time()) - DAY}, "'team-a' expired at .* by the clock here it is .*a new one is needed"),
        ({"nbf": int(time.time()) + 2 * DAY}, "is valid from .* a clock is off by 1 day"),
        ({"iat": int(time.time()) + DAY}, "a clock is off by"),
        ({"aud": "other"}, "for the network 'other', and this is 'test'"),
        ({"aud": None}, "for the network None"),
        ({"aud": {"test": 1}}, "for the network"),
        ({"iss": "minga:other"}, "issued by 'minga:other', whose grants are not taken here"),
        ({"iss": None}, "`iss` is not there"),
        ({"sub": None}, "`sub` is not there"),
        ({"sub": "a\nb"}, "`sub` is not there, or not a short text"),
        ({"sub": "a" * 600}, "`sub`"),
        ({"minga": None}, "has no rights"),
        ({"minga": []}, "has no rights"),
        ({"minga": {"read": "*"}}, "`read` is not a list"),
        ({"minga": {"read": [1]}}, "`read` is not a list"),
        ({"minga": {"publish": ["a/../b"]}}, "`publish` is no good: .*'..' part"),
        ({"minga": {"publish": ["cafe\N{COMBINING ACUTE ACCENT}"]}}, "NFC"),
        ({"minga": {"read": [f"d{at}" for at in range(101)]}}, "at most 100 prefixes"),
        ({"minga": {"admin": 1}}, "`admin` is neither true nor false"),
        ({"padding": "a" * 9000}, "has 1 to 8,192 bytes"),
    ],
)
async def test_a_grant_that_is_no_good_says_why(tmp_path: Path, changed: dict[str, Any], words: str) -> None:
    """Signed by the right key, so that each reason is the only one."""
    claims = ISSUER.claims("team-a", read=("*",)) | changed
    token = ISSUER.sign({name: value for name, value in claims.items() if value is not None})
    with pytest.raises(UnauthenticatedError, match=words):
        await grants_by(tmp_path / "keys", ISSUER).verify(token)


def forged(token: str, **header: Any) -> str:
    """The token with another header, and without a signature."""
    encoded = base64.urlsafe_b64encode(json.dumps(header).encode()).rstrip(b"=").decode()
    return f"{encoded}.{token.split('.')[1]}."


async def test_no_algorithm_but_that_of_the_key_counts(tmp_path: Path) -> None:
    """`none`, and an HMAC with the public key's bytes as its secret, which every reader of the keys can make."""
    issuer = Issuer(algorithm="RS256")
    grants = grants_by(tmp_path / "keys", issuer)
    claims = issuer.claims("team-a", read=("*",))
    pem = issuer.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    hmac = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256)
    head = base64.urlsafe_b64encode(b'{"alg":"HS256","kid":"1"}').rstrip(b"=").decode()
    body = issuer.sign(claims).split(".")[1]
    signature = base64.urlsafe_b64encode(hmac.sign(f"{head}.{body}".encode(), pem)).rstrip(b"=").decode()
    for token in (
        forged(issuer.sign(claims), alg="none", kid="1"),
        forged(issuer.sign(claims), alg="None", kid="1"),
        f"{head}.{body}.{signature}",
        jwt.encode(claims, issuer.key, "PS256", headers={"kid": "1"}),
        jwt.encode(claims, issuer.key, "RS512", headers={"kid": "1"}),
    ):
        assert "is not one of 'minga:test'" in await refusal(grants, token)
    await refusal(grants, issuer.sign(claims, crit=["x"], x=1))


async def test_every_flipped_bit_is_found(tmp_path: Path) -> None:
    """In header, claims and signature."""
    grants = grants_by(tmp_path / "keys", ISSUER)
    token = ISSUER.grant("team-a", read=("data",))
    await grants.verify(token)
    parts = [base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)) for part in token.split(".")]
    for at, part in enumerate(parts):
        for bit in range(0, 8 * len(part), 7):
            changed = bytearray(part)
            changed[bit // 8] ^= 1 << bit % 8
            whole = [*parts[:at], bytes(changed), *parts[at + 1 :]]
            flipped = ".".join(base64.urlsafe_b64encode(each).rstrip(b"=").decode() for each in whole)
            await refusal(grants, flipped)


async def test_clocks_may_differ_by_five_minutes(tmp_path: Path) -> None:
    """And a grant that was taken before is refused all the same once it has expired."""
    ahead = [0.0]
    keys = GrantKeys((KeySource("", str(write_keys(tmp_path / "keys", ISSUER))),), "minga:test")
    grants = Grants(keys, "test", lambda: time.time() + ahead[0])
    now = int(time.time())
    token = ISSUER.grant("team-a", iat=now, nbf=now, exp=now + 60)
    for ahead[0] in (-290.0, 0.0, 350.0):
        await grants.verify(token)
    ahead[0] = 370.0
    assert "expired" in await refusal(grants, token)
    fresh = grants_by(tmp_path / "keys", ISSUER, clock_ahead=-DAY)
    assert "a clock is off by" in await refusal(fresh, token)


async def test_an_issuer_counts_with_its_own_keys_alone(tmp_path: Path) -> None:
    """A key of one issuer signs nothing for another, whatever `iss` and `kid` say."""
    theirs = Issuer(issuer=OTHERS, key_id="2")
    own, other = write_keys(tmp_path / "own", ISSUER), write_keys(tmp_path / "theirs", theirs)
    grants = Grants(GrantKeys(parse_sources(f"{own}, {OTHERS}={other}"), "minga:test"), "test")
    assert (await grants.verify(theirs.grant("bot"))).subject == "bot"
    assert "is not one of 'minga:test'" in await refusal(grants, theirs.grant("bot", iss="minga:test"))
    theirs.key_id = "1"
    assert "signature does not match" in await refusal(grants, theirs.grant("bot", iss="minga:test"))


async def test_keys_are_exchanged_with_an_overlap(tmp_path: Path) -> None:
    """What was verified by a key that is gone counts no more; a broken file changes nothing."""
    path, new = tmp_path / "keys", Issuer(key_id="2")
    grants = grants_by(path, ISSUER)
    old_grant, new_grant = ISSUER.grant("a"), new.grant("a")
    await grants.verify(old_grant)
    assert "the key '2'" in await refusal(grants, new_grant)
    write_keys(path, ISSUER, new)
    await grants.verify(old_grant)
    await grants.verify(new_grant)
    path.write_text("half of a")
    await grants.verify(old_grant)
    write_keys(path, new)
    await grants.verify(new_grant)
    assert "the key '1'" in await refusal(grants, old_grant)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not a JWK set"),
        (b"[]", "not a JWK set"),
        (b'{"keys": 1}', "not a JWK set"),
        (b'{"keys": []}', "no key of the JWK set"),
        (b'{"keys": [{"kty": "oct", "k": "AAAA", "kid": "1"}]}', "no key of the JWK set"),
        (json.dumps({"keys": [ISSUER.jwk | {"use": "enc"}]}).encode(), "no key of the JWK set"),
        (json.dumps({"keys": [ISSUER.jwk | {"alg": "HS256"}]}).encode(), "no key of the JWK set"),
        (json.dumps({"keys": [ISSUER.jwk | {"kid": ""}]}).encode(), "no key of the JWK set"),
        (json.dumps({"keys": [ISSUER.jwk | {"x": "AAAA"}]}).encode(), "no key of the JWK set"),
        (b" " * 300_000, "more than 262,144 bytes"),
    ],
)
def test_a_file_without_keys_stops_the_process(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "keys").write_bytes(content)
    with pytest.raises(SettingsError, match=f"MINGA_GRANT_KEYS: .*keys.* {words}"):
        GrantKeys((KeySource("", str(tmp_path / "keys")),), "minga:test")


class Web:
    """What `download` fetches."""

    def __init__(self) -> None:
        self.answer: str | None = key_set(ISSUER)
        self.fetches = 0
        self.open = threading.Event()
        self.open.set()

    def fetch(self, url: str, issuer: str) -> bytes:
        self.fetches += 1
        assert self.open.wait(10)
        if self.answer is None:
            raise UnavailableError("away")
        return self.answer.encode()


@pytest.fixture
def web() -> Iterator[Web]:
    made = Web()
    yield made
    made.open.set()


def grants_from(web: Web) -> Grants:
    return Grants(GrantKeys((SOURCE,), "minga:test", web.fetch), "test")


async def test_keys_at_a_url_are_fetched_when_they_are_needed(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that is not known is asked for at once, and then not again for a while, whoever names one."""
    grants, new = grants_from(web), Issuer(key_id="2")
    assert web.fetches == 0
    await grants.verify(ISSUER.grant("a"))
    web.answer = key_set(ISSUER, new)
    for _ in range(3):
        assert "the key '2'" in await refusal(grants, new.grant("a"))
    assert web.fetches == 1
    monkeypatch.setattr(grant_keys, "UNKNOWN_KEY_SECONDS", 0.0)
    await grants.verify(new.grant("a"))
    assert web.fetches == 2
    web.answer = None
    assert "the key '3'" in await refusal(grants, Issuer(key_id="3").grant("a"))
    await grants.verify(new.grant("a"))
    assert web.fetches == 3


async def test_keys_that_arrive_between_two_looks_at_them_count(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then there is no fetch to wait for any more, and a grant of a key that is there was refused once."""
    keys = GrantKeys((SOURCE,), "minga:test", web.fetch)
    look = keys.current

    def look_and_fetch() -> Any:
        found = look()
        for fetch in keys.refresh("minga:test"):
            fetch.result(10)
        return found

    monkeypatch.setattr(keys, "current", look_and_fetch)
    await Grants(keys, "test").verify(ISSUER.grant("a"))


async def test_keys_at_a_url_are_refreshed(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the background: a key that its issuer has taken back counts no more."""
    grants, token = grants_from(web), ISSUER.grant("a")
    await grants.verify(token)
    web.answer = key_set(Issuer(key_id="2"))
    monkeypatch.setattr(grant_keys, "REFRESH_SECONDS", 0.0)
    deadline = time.monotonic() + 10
    with suppress(UnauthenticatedError):
        while time.monotonic() < deadline:
            await grants.verify(token)
    assert "the key '1'" in await refusal(grants, token)


async def test_a_url_that_hangs_holds_nobody_for_long(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minga_runtime.trust.grants.FETCH_SECONDS", 0.05)
    web.open.clear()
    assert "the key '1'" in await refusal(grants_from(web), ISSUER.grant("a"))
    assert web.fetches == 1


@pytest.mark.parametrize("text", ["http://a/jwks", "=file", "issuer=", "a=ftp://b"])
def test_a_source_is_a_file_or_an_https_url(text: str) -> None:
    with pytest.raises(MingaError):
        parse_sources(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(["iss", "aud", "sub", "exp", "nbf", "iat", "jti", "minga"])
HEADERS = st.sampled_from(["alg", "kid", "typ", "crit", "b64", "jwk", "jku", "x5u", "cty"])


def encoded(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    token=st.text(max_size=40)
    | st.builds(lambda *parts: ".".join(parts), *[st.text("AZaz09-_=eyJ", max_size=30)] * 3)
    | st.builds(
        lambda head, claims: f"{encoded(head)}.{encoded(claims)}.AAAA",
        JSON | st.builds(lambda more: {"alg": "EdDSA", "kid": "1", **more}, st.dictionaries(HEADERS, JSON)),
        JSON | st.builds(lambda more: ISSUER.claims("a") | more, st.dictionaries(NAMES, JSON)),
    )
    | st.builds(lambda more: ISSUER.sign(ISSUER.claims("a")).replace("e", more, 1), st.text(max_size=3)),
    rights=JSON,
)
async def test_no_bytes_do_more_than_be_refused(tmp_path: Path, token: str, rights: Any) -> None:
    """Tokens of anybody, and signed rights and times of any shape: a grant, or one error that says why."""
    grants = grants_by(tmp_path / "keys", ISSUER)
    for each in (
        token,
        ISSUER.sign(ISSUER.claims("a", minga=rights)),
        ISSUER.sign(ISSUER.claims("a", minga={"read": rights})),
    ):
        with suppress(UnauthenticatedError):
            await grants.verify(each)


NETWORK_PEER = Member("test", Role.PEER, "peer-1")
CLIENT = Member("test", Role.CLIENT, "someone")


def callers(path: Path, default: Rights | None = None) -> Callers:
    return Callers(NETWORK_PEER, (KeySource("", str(write_keys(path, ISSUER))),), default)


async def test_a_members_grant_counts_over_its_own_certificate(tmp_path: Path) -> None:
    """Everywhere, and nowhere over another one or none: a peer that has seen it can do nothing with it."""
    made, token = callers(tmp_path / "keys"), ISSUER.grant(CLIENT.uri, publish=("data",))
    for by in (made.member, made.client):
        caller = await by(CLIENT, token)
        assert caller.member == CLIENT
        assert "data/x" in caller.rights.publish
        for other in (NETWORK_PEER, Member("test", Role.CLIENT, "Someone"), Member("other", Role.CLIENT, "someone")):
            with pytest.raises(UnauthenticatedError):
                await by(other, token)
    with pytest.raises(UnauthenticatedError, match="counts over its own certificate alone"):
        await made.client(None, token)


async def test_a_bearer_token_counts_at_the_locator_alone(tmp_path: Path) -> None:
    """With a certificate or without one."""
    made, token = callers(tmp_path / "keys"), ISSUER.grant("bot", read=("data",))
    for member in (None, CLIENT):
        assert (await made.client(member, token)).subject == "bot"
    with pytest.raises(UnauthenticatedError, match="the grant of 'bot' is not of client someone"):
        await made.member(CLIENT, token)


async def test_who_shows_no_grant_has_the_default_rights(tmp_path: Path) -> None:
    """Nothing where there are grants; everything where there are none, and a grant is not looked at."""
    made = callers(tmp_path / "keys")
    assert "data" not in (await made.client(CLIENT, "")).rights.read
    made = callers(tmp_path / "keys", parse_rights("read=*"))
    assert "data" in (await made.client(CLIENT, "")).rights.read
    made = Callers(NETWORK_PEER)
    assert "data" in (await made.member(CLIENT, "any.thing.atall")).rights.publish
    for token in ("", "any.thing.atall"):
        with pytest.raises(UnauthenticatedError):
            await made.client(None, token)


def test_authorization_is_one_bearer_token() -> None:
    assert bearer_token([]) == ""
    assert bearer_token([b"bearer  a.b.c"]) == bearer_token(["Bearer a.b.c"]) == "a.b.c"
    for values in (["Basic abc"], ["Bearer "], ["Bearer"], ["Bearer a", "Bearer b"], [b"\xff"], [""]):
        with pytest.raises(UnauthenticatedError):
            bearer_token(values)


def test_the_own_grant_follows_its_file(tmp_path: Path) -> None:
    """Peers and registry see those alone which are of no use to them."""
    path, first = tmp_path / "grant.jwt", ISSUER.grant(CLIENT.uri)
    path.write_text(first + "\n")
    own = OwnGrant(path)
    assert own.header == f"Bearer {first}"
    assert own.metadata == (("authorization", f"Bearer {first}"),)
    bearer = ISSUER.grant("bot")
    path.write_text(bearer)
    assert (own.header, own.metadata) == (f"Bearer {bearer}", ())
    for damage in ("", "a.b", "a.b.c\r\nHost: x", "\N{LATIN SMALL LETTER E WITH ACUTE}.b.c"):
        path.write_text(damage)
        assert own.header == f"Bearer {bearer}"
        with pytest.raises(SettingsError, match=r"MINGA_GRANT: .*grant\.jwt"):
            OwnGrant(path)
    path.unlink()
    assert own.header == f"Bearer {bearer}"


@pytest.mark.parametrize("text", ["read", "write=*", "read=*;read=a", "read=a/../b", "admin=true", "read=/a"])
def test_default_rights_are_checked(text: str) -> None:
    with pytest.raises(MingaError):
        parse_rights(text)


def test_default_rights_are_written_by_right() -> None:
    rights = parse_rights("read=*; publish=data, ci/ ;")
    assert "x" in rights.read
    assert "ci/1" in rights.publish
    assert "x" not in rights.publish
    assert not rights.admin
