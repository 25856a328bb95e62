"""Grants: signed statements of what somebody may do in a network, as JWTs (docs/adr/0034).

The claim `minga` has the rights. A grant is of whom its `sub` names: a member (`spiffe://…`), for whom it counts over
connections with that member's certificate alone, or anybody else who shows it to the locator.
"""

import asyncio
import hashlib
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt

from minga_core.errors import InvalidArgumentError, Refusal, UnauthenticatedError
from minga_runtime.trust.grant_keys import GrantKey, GrantKeys, Keys
from minga_runtime.trust.jwks_url import FETCH_SECONDS
from minga_runtime.trust.members import MEMBER_SCHEME
from minga_runtime.trust.own_grant import MAX_GRANT_BYTES
from minga_runtime.trust.rights import Prefixes, Rights

LEEWAY_SECONDS = 300.0
"""By how much the clocks of issuer and verifier may differ."""
MAX_CACHED = 4_096
"""Verified grants that are kept; the least recently used go first."""
MAX_TEXT_LENGTH = 512
"""Characters of issuer, subject, key id and grant id."""

_YEAR_10000 = 253_402_300_800
# Signed or not: what PyJWT and its parser raise for bytes that anybody may have made.
_JWT_ERRORS = (jwt.PyJWTError, ValueError, TypeError, ArithmeticError, RecursionError)


@dataclass(frozen=True, slots=True)
class Grant:
    """A verified grant."""

    subject: str
    rights: Rights
    expires_at: float
    """Seconds since 1970."""
    grant_id: str
    """Its `jti`; empty when it has none."""

    @property
    def valid_until(self) -> float:
        """When it counts no more, in seconds since 1970."""
        return self.expires_at + LEEWAY_SECONDS

    @property
    def of_member(self) -> bool:
        """Whether it counts over its member's certificate alone."""
        return self.subject.startswith(MEMBER_SCHEME)


class Grants:
    """Verifies grants for one network; for one event loop. wall: the time in seconds since 1970."""

    def __init__(self, keys: GrantKeys, network: str, wall: Callable[[], float] = time.time) -> None:
        self._keys = keys
        self._network = network
        self._wall = wall
        self._by_issuer: Mapping[str, Keys] = {}
        self._verified: OrderedDict[bytes, Grant] = OrderedDict()

    def keys(self) -> Mapping[str, Keys]:
        """The keys of the moment, by issuer: the same object until one changes."""
        return self._keys.current()

    async def verify(self, token: str) -> Grant:
        """The grant that a token is. Raises UnauthenticatedError with the reason; no retry helps.

        Waits for at most FETCH_SECONDS, where its key may be one that its issuer has published a moment ago.
        """
        if not 0 < len(token) <= MAX_GRANT_BYTES:
            raise UnauthenticatedError(f"a grant has 1 to {MAX_GRANT_BYTES:,} bytes, not {len(token):,}")
        digest = hashlib.sha256(token.encode(errors="replace")).digest()
        self._look_at_keys()
        grant = self._verified.get(digest)
        if grant is None:
            grant = await self._verify(token)
            self._verified[digest] = grant
            if len(self._verified) > MAX_CACHED:
                self._verified.popitem(last=False)
        else:
            self._verified.move_to_end(digest)
            _check_not_expired(grant, self._wall())
        return grant

    def _look_at_keys(self) -> None:
        """Forget what was verified by keys that may not be there any more."""
        by_issuer = self.keys()
        if by_issuer is not self._by_issuer:
            self._by_issuer = by_issuer
            self._verified.clear()

    async def _verify(self, token: str) -> Grant:
        header, issuer = _unverified(token)
        key = self._key(header, issuer)
        if key is None:
            if fetches := self._keys.refresh(issuer):
                await asyncio.wait([asyncio.wrap_future(fetch) for fetch in fetches], timeout=FETCH_SECONDS)
            # Without a fetch to wait for too: the one that the first look began may have ended since.
            self._look_at_keys()
            key = self._key(header, issuer)
        if key is None:
            raise UnauthenticatedError(f"the key {header['kid']!r} that signed the grant is not one of {issuer!r}")
        return self._checked(_claims(token, key))

    def _key(self, header: Mapping[str, str], issuer: str) -> GrantKey | None:
        """Raises UnauthenticatedError for an issuer whose grants are not taken."""
        if issuer not in self._by_issuer:
            raise UnauthenticatedError(
                f"the grant is issued by {issuer!r}, whose grants are not taken here",
                hint="MINGA_GRANT_KEYS has the issuers",
            )
        found = (key for key in self._by_issuer[issuer] if key.key_id == header["kid"])
        return next((key for key in found if key.algorithm == header["alg"]), None)

    def _checked(self, claims: Mapping[str, Any]) -> Grant:
        """The grant of signed claims."""
        audience = claims.get("aud")
        if self._network not in (audience if isinstance(audience, list) else [audience]):
            raise UnauthenticatedError(f"the grant is for the network {audience!r:.100}, and this is {self._network!r}")
        grant = Grant(_text(claims, "sub"), _rights(claims), _time(claims, "exp"), _text(claims, "jti", needed=False))
        now = self._wall()
        _check_not_expired(grant, now)
        for name in ("nbf", "iat"):
            if name in claims and (start := _time(claims, name)) > now + LEEWAY_SECONDS:
                raise UnauthenticatedError(
                    f"the grant of {grant.subject!r} is valid from {_shown(start)} on, and by the clock here it is "
                    f"{_shown(now)}: a clock is off by {timedelta(seconds=round(start - now))}"
                )
        return grant


def _unverified(token: str) -> tuple[Mapping[str, str], str]:
    """`kid` and `alg` of the header, and the issuer, by which the key is found. Raises UnauthenticatedError."""
    try:
        header = jwt.get_unverified_header(token)
        claims = jwt.decode(token, options={"verify_signature": False})
    except _JWT_ERRORS as error:
        raise UnauthenticatedError("the grant is not a JWT", hint="it has three parts with dots between") from error
    return {name: _text(header, name) for name in ("kid", "alg")}, _text(claims, "iss")


def _claims(token: str, key: GrantKey) -> dict[str, Any]:
    """The claims, once the signature is verified. Raises UnauthenticatedError. Times are checked by `Grants`, which can
    say what is wrong with them."""
    unchecked = dict.fromkeys(
        ("verify_exp", "verify_nbf", "verify_iat", "verify_aud", "verify_sub", "verify_jti"), False
    )
    try:
        # One algorithm, that of the key: the header cannot choose another one.
        claims: dict[str, Any] = jwt.decode(token, key.key, algorithms=[key.algorithm], options=unchecked)  # type: ignore[arg-type]
    except _JWT_ERRORS as error:
        raise UnauthenticatedError(
            "the grant's signature does not match: it was changed, or signed by another key"
        ) from error
    return claims


def _rights(claims: Mapping[str, Any]) -> Rights:
    found = claims.get("minga")
    if not isinstance(found, dict):
        raise UnauthenticatedError("the grant has no rights: the claim `minga` is not there, or not an object")
    admin = found.get("admin", False)
    if not isinstance(admin, bool):
        raise UnauthenticatedError("the grant's right `admin` is neither true nor false")
    return Rights(_prefixes(found, "read"), _prefixes(found, "publish"), admin)


def _prefixes(rights: Mapping[str, Any], name: str) -> Prefixes:
    texts = rights.get(name, [])
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise UnauthenticatedError(f"the grant's right `{name}` is not a list of prefixes")
    try:
        return Prefixes.parse(texts)
    except InvalidArgumentError as error:
        raise UnauthenticatedError(f"the grant's right `{name}` is no good: {error}") from error


def _text(claims: Mapping[str, Any], name: str, *, needed: bool = True) -> str:
    found = claims.get(name, "")
    if not isinstance(found, str) or len(found) > MAX_TEXT_LENGTH or not found.isprintable() or (needed and not found):
        raise UnauthenticatedError(f"the grant's `{name}` is not there, or not a short text")
    return found


def _time(claims: Mapping[str, Any], name: str) -> float:
    found = claims.get(name)
    # Years beyond 9999 cannot be shown.
    if isinstance(found, bool) or not isinstance(found, int | float) or not 0 <= found < _YEAR_10000:
        raise UnauthenticatedError(f"the grant's `{name}` is not there, or not a time in seconds since 1970")
    return float(found)


def _check_not_expired(grant: Grant, now: float) -> None:
    if now > grant.valid_until:
        raise UnauthenticatedError(
            f"the grant of {grant.subject!r} expired at {_shown(grant.expires_at)}, and by the clock here it is "
            f"{_shown(now)}: a new one is needed, unless the clock is wrong",
            refusal=Refusal.GRANT_EXPIRED,
        )


def _shown(seconds: float) -> str:
    return datetime.fromtimestamp(math.floor(seconds), UTC).strftime("%Y-%m-%d %H:%M:%SZ")
