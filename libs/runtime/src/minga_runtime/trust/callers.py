"""Callers: who has sent a request, and what that may do. Each server makes them at its edge, in one place."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from minga_core.errors import Refusal, UnauthenticatedError
from minga_runtime.trust.members import Member
from minga_runtime.trust.revocation import Revoked
from minga_runtime.trust.rights import ALL, NONE, Prefixes, Rights

if TYPE_CHECKING:
    from minga_runtime.trust.grants import Grants
    from minga_runtime.trust.key_sources import KeySource

_SCHEME = "bearer "
_MEMBERS = Rights(Prefixes(True), Prefixes(True))
"""Of members in a network without grants."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls. member: None for one without a certificate. grant_id: the `jti` of the grant with the rights.
    valid_until: when that grant counts no more, in seconds since 1970."""

    member: Member | None
    subject: str
    rights: Rights
    grant_id: str = ""
    valid_until: float = math.inf

    @property
    def grant(self) -> dict[str, str]:
        """`sub` and `jti` of the grant with the rights, for the audit log; empty where there is none."""
        own = "" if self.member is None else self.member.uri
        if self.subject == own and not self.grant_id:
            return {}
        return {"sub": self.subject, "jti": self.grant_id}


OPEN = Caller(None, "", ALL)
"""Anybody, in an open network."""


class Callers:
    """Says who a caller is, by its certificate and its grant; for one event loop.

    own: this process. sources: where the keys are by which grants are verified; none in a network without grants.
    default: rights of members without a grant; None: everything in a network without grants, else nothing.
    revoked: who is refused all the same; every call below raises PermissionDeniedError for it. Raises SettingsError
    for key files that are no good.
    """

    def __init__(
        self,
        own: Member,
        sources: tuple["KeySource", ...] = (),
        default: Rights | None = None,
        revoked: Revoked | None = None,
    ) -> None:
        self._revoked = revoked or Revoked()
        self._grants = _grants(own.network, sources) if sources else None
        self._default = default or (NONE if sources else _MEMBERS)

    async def member(self, member: Member, token: str) -> Caller:
        """The caller with that certificate. token: its grant, which must be of that member; empty for none.

        Raises UnauthenticatedError.
        """
        self._revoked.check(member.uri)
        if not token or self._grants is None:
            return Caller(member, member.uri, self._default)
        caller = await self._by_grant(self._grants, member, token)
        if caller.subject != member.uri:
            raise UnauthenticatedError(
                f"the grant of {caller.subject!r} is not of {member}, who shows it",
                refusal=Refusal.GRANT_OF_OTHER,
            )
        return caller

    async def client(self, member: Member | None, token: str) -> Caller:
        """The caller of a locator: as `member`, or anybody with a grant that is of no member.

        Raises UnauthenticatedError.
        """
        if member is not None:
            self._revoked.check(member.uri)
        if member is None and not token:
            raise UnauthenticatedError(
                "a certificate of this network or a bearer token is needed",
                hint="set MINGA_TLS_CERT, _KEY and _CA",
                refusal=Refusal.NO_CERTIFICATE,
            )
        if not token or self._grants is None:
            if member is None:
                raise UnauthenticatedError(
                    "a certificate of this network is needed: bearer tokens are not taken here",
                    refusal=Refusal.NO_CERTIFICATE,
                )
            return Caller(member, member.uri, self._default)
        return await self._by_grant(self._grants, member, token)

    async def _by_grant(self, grants: "Grants", member: Member | None, token: str) -> Caller:
        grant = await grants.verify(token)
        if grant.of_member and (member is None or grant.subject != member.uri):
            raise UnauthenticatedError(
                f"the grant of {grant.subject!r} counts over its own certificate alone", refusal=Refusal.GRANT_OF_OTHER
            )
        self._revoked.check(grant.subject, grant.grant_id)
        return Caller(member, grant.subject, grant.rights, grant.grant_id, grant.valid_until)


def _grants(network: str, sources: tuple["KeySource", ...]) -> "Grants":
    from minga_runtime.trust.grant_keys import GrantKeys
    from minga_runtime.trust.grants import Grants

    return Grants(GrantKeys(sources, f"minga:{network}"), network)


def bearer_token(values: Iterable[Any]) -> str:
    """The token in the values of `authorization`; empty for none. Raises UnauthenticatedError for anything else."""
    found = [value.decode("latin-1") if isinstance(value, bytes) else str(value) for value in values]
    if not found:
        return ""
    token = found[0][len(_SCHEME) :].strip()
    if len(found) > 1 or found[0][: len(_SCHEME)].lower() != _SCHEME or not token:
        raise UnauthenticatedError("`authorization` has one value, `Bearer` and a token")
    return token
