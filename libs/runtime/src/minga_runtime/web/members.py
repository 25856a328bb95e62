"""Who sends a request; and in a secure network: requests of members and of bearers of a grant alone, except for probes
and the page."""

import ssl
import time
from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple

from starlette.types import ASGIApp, Receive, Scope, Send

from minga_core.errors import Refusal, UnauthenticatedError
from minga_runtime.quotas import host_of
from minga_runtime.trust.authorization import check_role, check_valid
from minga_runtime.trust.callers import OPEN, Caller, Callers, bearer_token
from minga_runtime.trust.members import USERS, Member, expires_at, member_at
from minga_runtime.trust.origin import Origin
from minga_runtime.trust.own_grant import AUTHORIZATION

CLIENT = "minga.client"
"""In the scope of a request: the TlsClient of its connection."""
CALLER = "minga.caller"
"""In the scope of a request: its Caller. See `caller_in`."""
PROBES = frozenset({"/livez", "/readyz"})
"""Kubernetes asks these without a certificate."""
_AUTHORIZATION = AUTHORIZATION.encode()
SHOWN_SECONDS = 1.0
"""What a connection showed counts for so long, and is then verified again: its grant may have been revoked, or the key
of it be gone. To ask that of every request takes 3 % of a look-up."""


class TlsClient:
    """The other end of a connection with TLS, whose certificate is read once, not for each request."""

    shown: "_Shown | None" = None
    """What its last request showed, and whom that made it."""

    def __init__(self, connection: ssl.SSLObject) -> None:
        self._connection = connection

    @cached_property
    def member(self) -> Member | None:
        """Who it is; None without a certificate. Raises UnauthenticatedError for one that names no member."""
        return member_at(self._connection) if self._connection.getpeercert() else None

    @cached_property
    def expires_at(self) -> float:
        """When its certificate ends, in seconds since 1970."""
        return expires_at(self._connection)

    @cached_property
    def known_member(self) -> Member | None:
        """Who it is; None without a certificate of a member."""
        try:
            return self.member
        except UnauthenticatedError:
            return None

    @cached_property
    def caller(self) -> str | None:
        """What quotas count a member by."""
        return None if self.known_member is None else str(self.known_member)


class _Shown(NamedTuple):
    """The values of `authorization`, and whom they make until a time, in seconds since 1970."""

    values: list[bytes]
    until: float
    caller: Caller


def client_host(client: tuple[str, int] | None) -> str:
    """The host that quotas count by, from ASGI's `client`: behind a trusted proxy, that of the proxy's client."""
    return host_of(client[0]) if client else ""


def caller_in(scope: Scope) -> Caller:
    """Who has sent a request; OPEN in an open network."""
    caller: Caller = scope.get(CALLER, OPEN)
    return caller


def caller_of(scope: Scope) -> str:
    """What quotas count a request by; see `Origin.caller`."""
    client: TlsClient | None = scope.get(CLIENT)
    return (client and client.caller) or client_host(scope.get("client"))


def origin_of(scope: Scope) -> Origin:
    """Where a request comes from: behind a trusted proxy, from the proxy's client."""
    client: TlsClient | None = scope.get(CLIENT)
    return Origin.of_socket(scope.get("client"), client.known_member if client else None)


class MembersOnly:
    """ASGI middleware: makes the Caller of each request. Raises UnauthenticatedError, PermissionDeniedError.

    own: this locator. both: requests without TLS are taken too, as in an open network. public: says of a path whether
    everybody may have what is there.
    """

    def __init__(
        self, app: ASGIApp, own: Member, callers: Callers, *, both: bool = False, public: Callable[[str], bool]
    ) -> None:
        self._app = app
        self._both = both
        self._public = public
        self._own = own
        self._callers = callers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on a request that its client may make."""
        if scope["type"] == "http" and not self._public(scope["path"]):
            scope[CALLER] = await self._caller(scope)
        await self._app(scope, receive, send)

    async def _caller(self, scope: Scope) -> Caller:
        client: TlsClient | None = scope.get(CLIENT)
        if client is None and self._both:
            return OPEN
        if client is None:
            raise UnauthenticatedError("a connection with TLS is needed", refusal=Refusal.NO_CERTIFICATE)
        values = [value for name, value in scope["headers"] if name == _AUTHORIZATION]
        known, now = client.shown, time.time()
        if known is not None and known.values == values and now < known.until:
            return known.caller
        caller = await self._verified(client, values)
        client.shown = _Shown(values, min(now + SHOWN_SECONDS, client.expires_at, caller.valid_until), caller)
        return caller

    async def _verified(self, client: TlsClient, values: list[bytes]) -> Caller:
        if client.member is not None:
            check_valid(client.member, client.expires_at, time.time())
            check_role(client.member, self._own, USERS, "use the locator")
        return await self._callers.client(client.member, bearer_token(values))
