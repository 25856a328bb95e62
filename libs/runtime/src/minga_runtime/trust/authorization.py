"""Who may call a gRPC server of a secure network, and for whom."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from minga_core.errors import PermissionDeniedError, Refusal, UnauthenticatedError
from minga_runtime.trust.callers import OPEN, Caller, Callers, bearer_token
from minga_runtime.trust.credentials import Credentials
from minga_runtime.trust.members import Member, Role, member_of
from minga_runtime.trust.own_grant import AUTHORIZATION

if TYPE_CHECKING:
    # With the metrics, which clients do not load.
    from minga_runtime.both import OpenConnections

MAX_CACHED_CERTIFICATES = 4_096
"""Of callers: to read one takes 30 to 50 µs, which is more than a heartbeat."""


@dataclass(frozen=True, slots=True)
class Access:
    """What a server demands of its callers beyond a certificate of the network."""

    credentials: Credentials
    callers: Callers
    roles: Mapping[str, frozenset[Role]]
    """Roles that may call a service, by its full name. Other services, as that of health, are for every member."""
    claimed_peer: Callable[[Any], str] = lambda request: ""
    """The peer id for which a request acts; empty when it acts for none. Only that peer may send it."""
    plain: "OpenConnections | None" = None
    """With it calls without TLS are taken too, as in an open network; connections for them are counted there."""
    wall: Callable[[], float] = time.time
    """The time in seconds since 1970."""

    def admit(self, path: str, context: Any) -> Callable[[Any], None]:
        """Admit a call of `/service/Method`; the returned check is for each of its requests.

        Both raise UnauthenticatedError or PermissionDeniedError.
        """
        if self._is_open(context):
            return lambda request: None
        caller = _member(context)
        self.credentials.revoked.check(caller.uri)
        _, service, method = path.split("/")
        roles = self.roles.get(service)
        # A connection outlives its certificate; a call that began in time ends in its own time.
        check_valid(caller, _end_of(context.auth_context()["x509_pem_cert"][0]), self.wall())
        check_role(caller, self.credentials.member, roles or frozenset(Role), f"call {method}")
        if roles is None:
            return lambda request: None

        def check(request: Any) -> None:
            # A stream may outlive its caller's membership.
            self.credentials.revoked.check(caller.uri)
            check_own_peer(caller, self.claimed_peer(request))

        return check

    async def caller(self, context: Any) -> Caller:
        """Who makes an admitted call, with the rights of the grant in its metadata. Raises UnauthenticatedError."""
        if self._is_open(context):
            return OPEN
        values = (value for key, value in context.invocation_metadata() or () if key == AUTHORIZATION)
        return await self.callers.member(_member(context), bearer_token(values))

    def _is_open(self, context: Any) -> bool:
        """Whether a call is one of an open network."""
        return self.plain is not None and "x509_pem_cert" not in context.auth_context()


async def caller_at(access: Access | None, context: Any) -> Caller:
    """Who makes a call; OPEN in an open network. Raises UnauthenticatedError."""
    return OPEN if access is None else await access.caller(context)


def _member(context: Any) -> Member:
    # Only certificates that the network's CA has signed get as far as here.
    return member_of(uri.decode() for uri in context.auth_context().get("peer_uri", ()))


@lru_cache(maxsize=MAX_CACHED_CERTIFICATES)
def _end_of(certificate: bytes) -> float:
    """When a certificate ends, in seconds since 1970."""
    from cryptography import x509

    return x509.load_pem_x509_certificate(certificate).not_valid_after_utc.timestamp()


def check_valid(caller: Member, end: float, now: float) -> None:
    """Check that a certificate has not ended since its connection was made. Raises UnauthenticatedError."""
    if now >= end:
        raise UnauthenticatedError(
            f"the certificate of {caller} has expired",
            hint="connect again with a new one",
            refusal=Refusal.CERTIFICATE_EXPIRED,
        )


def check_role(caller: Member, own: Member, roles: frozenset[Role], action: str) -> None:
    """Check that `caller` is of our network and has one of the roles. Raises UnauthenticatedError,
    PermissionDeniedError."""
    if caller.network != own.network:
        raise UnauthenticatedError(
            f"{caller} is of the network {caller.network}, and this is {own.network}", refusal=Refusal.FOREIGN_NETWORK
        )
    if caller.role not in roles:
        raise PermissionDeniedError(
            f"{caller} may not {action}: {' or '.join(sorted(roles))} may", refusal=Refusal.WRONG_ROLE
        )


def check_own_peer(caller: Member, peer_id: str) -> None:
    """Check that `caller` may act for a peer: for itself, or for none. Raises PermissionDeniedError."""
    if peer_id and (caller.role is not Role.PEER or caller.name != peer_id):
        raise PermissionDeniedError(f"{caller} may not act for peer {peer_id[:128]!r}", refusal=Refusal.OTHER_PEER)
