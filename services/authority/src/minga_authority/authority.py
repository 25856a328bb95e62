"""What the authority does for those that ask it, and for who runs it. No HTTP in here; calls block on the disk.

A join token is everything that a stranger needs: where the authority is, the hash of its CA, and what the bearer may
become. It is signed by the key for grants, and is for another audience than a grant: neither passes for the other.
"""

import os
import secrets
from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from getpass import getuser
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from minga_authority.certificates import CertificateAuthority, PublicKey, fingerprint, key_of_request, moment, pem
from minga_authority.folder import AuthorityFolder, Keys, Network, ca_digest
from minga_authority.grant_key import jwks, verified
from minga_authority.store import Store
from minga_authority.terms import Grant, Terms, check_name
from minga_core.clock import Clock, SystemClock
from minga_core.errors import InvalidArgumentError, MingaError, Refusal, UnauthenticatedError
from minga_runtime.trust.audit import Audit
from minga_runtime.trust.members import Role
from minga_runtime.trust.origin import Origin

CERTIFICATE_LIFE = timedelta(days=1)
JOIN_AUDIENCE = "minga-join"
MAX_TOKEN_CHARACTERS = 16 * 1024
DATABASE_FILE = "authority.db"
ELSEWHERE = Origin("", "unknown")


class Authority:
    """The authority of one folder; for any thread. life: how long certificates, and grants of members, are good.

    state: where its database is, if not in the folder itself. audit: where it says who has become what.
    """

    def __init__(
        self,
        folder: AuthorityFolder,
        *,
        life: timedelta = CERTIFICATE_LIFE,
        state: Path | None = None,
        clock: Clock | None = None,
        audit: Audit | None = None,
    ) -> None:
        self.folder = folder
        self.life = life
        self._state = state or folder.path
        self.store = Store(self._state / DATABASE_FILE)
        self._clock = clock or SystemClock()
        self._audit = audit or Audit(None, "authority", CollectorRegistry())

    def create_token(self, terms: Terms, life: timedelta, network: Network | None = None) -> str:
        """A token for joining under those terms. network: where everything is, if not as `init` has it.

        Raises InvalidArgumentError, StorageError.
        """
        now, keys = self._clock.wall(), self.folder.keys()
        jti = secrets.token_urlsafe(16)
        claims = self._claims(keys, JOIN_AUDIENCE, jti, now, life) | terms.claims
        network = network or keys.network
        claims |= {"ca": network.url, "registry": network.registry, "locator": network.locator}
        claims["ca_sha256"] = ca_digest(keys.trusted_cas(now, self.life)[-1])
        self.store.add_token(jti, terms, claims["exp"])
        self._audit.record("token_created", _operator(), token=jti, expires=_utc(claims["exp"]), **terms.claims)
        return keys.signing_grant_key(now).sign(claims)

    def join(self, token: str, csr: str, name: str, origin: Origin = ELSEWHERE) -> dict[str, Any]:
        """Make the bearer of a token a member. name: what it calls itself; empty where its token does. origin: for the
        audit log.

        Raises UnauthenticatedError, PermissionDeniedError, NameTakenError, InvalidArgumentError, StorageError. Safe to
        repeat with the same key.
        """
        now, keys = self._clock.wall(), self.folder.keys()
        claims = self._token_claims(token, keys, now)
        terms = Terms.from_claims(claims)
        key = key_of_request(csr)
        terms = replace(terms, name=_name(terms, name))
        uri, until = _uri(keys, terms), now + self._life_seconds
        self.store.join(claims["jti"], terms, claims["exp"], uri, fingerprint(key), now, until)
        self._audit.record("joined", origin, member=uri, token=claims["jti"], key=fingerprint(key), expires=_utc(until))
        return self._membership(keys, terms, key, now)

    def renew(self, uri: str, certified: PublicKey, csr: str, origin: Origin = ELSEWHERE) -> dict[str, Any]:
        """A new certificate and grant for a member. uri, certified: who has shown its certificate, and the key in it.

        Raises UnauthenticatedError, PermissionDeniedError, InvalidArgumentError, StorageError. Safe to repeat.
        """
        now, keys = self._clock.wall(), self.folder.keys()
        key = key_of_request(csr)
        if fingerprint(key) != fingerprint(certified):
            raise InvalidArgumentError("a certificate is renewed for the key that it has; join again for another")
        until = now + self._life_seconds
        terms = self.store.renew(uri, fingerprint(key), now, until)
        self._audit.record("renewed", origin, member=uri, expires=_utc(until))
        return self._membership(keys, terms, key, now)

    def trust(self) -> dict[str, Any]:
        """What members check each other with: CAs, keys of grants, and who is revoked. Public."""
        now, keys = self._clock.wall(), self.folder.keys()
        return {
            "ca": pem(*(ca.certificate for ca in keys.trusted_cas(now, self.life))),
            "grant_keys": jwks(*keys.trusted_grant_keys(now, self.life)),
            "revoked": self.store.revoked(now),
        }

    def trusted_cas(self, keys: Keys, now: float) -> tuple[CertificateAuthority, ...]:
        """The CAs whose certificates are taken, newest first."""
        return keys.trusted_cas(now, self.life)

    def write_server_files(self, now: float) -> tuple[Path, Path]:
        """New files with which to serve: certificate and key. Raises SettingsError, StorageError."""
        return self.folder.write_server_files(self._state, now, self.life)

    def grant(self, subject: str, read: Iterable[str], publish: Iterable[str], life: timedelta) -> str:
        """A grant for anybody who bears it, for the locator's REST. Raises InvalidArgumentError, StorageError."""
        if not subject or subject.startswith("spiffe:"):
            raise InvalidArgumentError("a bearer's grant has a subject of its own, not a member's URI")
        now, keys = self._clock.wall(), self.folder.keys()
        terms = Terms(Role.CLIENT, read=tuple(read), publish=tuple(publish))
        jti = secrets.token_urlsafe(16)
        claims = self._claims(keys, keys.network.network, jti, now, life) | {"sub": subject, "minga": terms.rights}
        self.store.add_grant(Grant(jti, subject, claims["exp"]))
        given = {"sub": subject, "jti": jti}
        self._audit.record("granted", _operator(), grant=given, expires=_utc(claims["exp"]), **terms.rights)
        return keys.signing_grant_key(now).sign(claims)

    def revoke(self, who: str) -> list[str]:
        """Revoke members and grants of that name, URI, subject or id; what was found."""
        found = self.store.revoke(who, self._clock.wall())
        for each in found:
            self._audit.record("revoked", _operator(), revoked=each)
        return found

    @property
    def _life_seconds(self) -> float:
        return self.life.total_seconds()

    def _token_claims(self, token: str, keys: Keys, now: float) -> dict[str, Any]:
        if len(token) > MAX_TOKEN_CHARACTERS:
            raise InvalidArgumentError(f"a token has at most {MAX_TOKEN_CHARACTERS:,} characters")
        known = {"keys": [key.jwk for key, _ in keys.grant_keys]}
        try:
            return verified(token, known, _issuer(keys), JOIN_AUDIENCE, now)
        except MingaError as error:
            raise UnauthenticatedError(
                f"the token is not good: {error}", hint="ask for a new one", refusal=Refusal.TOKEN_INVALID
            ) from error

    def _membership(self, keys: Keys, terms: Terms, key: PublicKey, now: float) -> dict[str, Any]:
        """All that a member's credentials folder holds, but its key."""
        uri = _uri(keys, terms)
        certificate = keys.signing_ca(now).issue(
            key, uri, terms.names_of(terms.name), moment(now), self.life, serves=terms.serves
        )
        claims = self._claims(keys, keys.network.network, secrets.token_urlsafe(16), now, self.life)
        answer = self.trust() | {
            "certificate": pem(certificate),
            "grant": keys.signing_grant_key(now).sign(claims | {"sub": uri, "minga": terms.rights}),
            "member": uri,
            "life_seconds": self._life_seconds,
        }
        if terms.role in (Role.REGISTRY, Role.LOCATOR):
            answer["publication_key"] = keys.publication_key
        return answer

    def _claims(self, keys: Keys, audience: str, jti: str, now: float, life: timedelta) -> dict[str, Any]:
        times = {"iat": int(now), "exp": int(now + life.total_seconds())}
        return {"iss": _issuer(keys), "aud": audience, "jti": jti} | times


def _operator() -> Origin:
    """The user that runs a command on the folder."""
    try:
        return Origin("", getuser())
    except (KeyError, OSError):  # a container's user may have no name
        return Origin("", f"uid {os.getuid()}")


def _utc(seconds: float) -> str:
    return moment(seconds).strftime("%Y-%m-%dT%H:%M:%SZ")


def _issuer(keys: Keys) -> str:
    return f"minga:{keys.network.network}"


def _uri(keys: Keys, terms: Terms) -> str:
    return f"spiffe://{keys.network.network}/{terms.role}/{terms.name}"


def _name(terms: Terms, asked: str) -> str:
    """Raises InvalidArgumentError."""
    if terms.name and asked not in ("", terms.name):
        raise InvalidArgumentError(f"the token is for {terms.role} {terms.name}, not for {asked[:80]!r}")
    name = terms.name or asked
    if not name:
        raise InvalidArgumentError("the token names nobody: say who joins")
    check_name(name)
    return name
