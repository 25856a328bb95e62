"""In a secure network: requests of members and of bearers of a grant alone, but for probes."""

import ssl
from functools import cached_property

from starlette.types import ASGIApp, Receive, Scope, Send

from minga_core.errors import UnauthenticatedError
from minga_runtime.trust.authorization import check_role
from minga_runtime.trust.callers import OPEN, Caller, Callers, bearer_token
from minga_runtime.trust.members import USERS, Member, member_at
from minga_runtime.trust.own_grant import AUTHORIZATION

CLIENT = "minga.client"
"""In the scope of a request: the TlsClient of its connection."""
CALLER = "minga.caller"
"""In the scope of a request: its Caller. See `caller_in`."""
PROBES = frozenset({"/livez", "/readyz"})
"""Kubernetes asks these without a certificate."""
_AUTHORIZATION = AUTHORIZATION.encode()


class TlsClient:
    """The other end of a connection with TLS, whose certificate is read once, not for each request."""

    def __init__(self, connection: ssl.SSLObject) -> None:
        self._connection = connection

    @cached_property
    def member(self) -> Member | None:
        """Who it is; None without a certificate. Raises UnauthenticatedError for one that names no member."""
        return member_at(self._connection) if self._connection.getpeercert() else None


def caller_in(scope: Scope) -> Caller:
    """Who has sent a request; OPEN in an open network."""
    caller: Caller = scope.get(CALLER, OPEN)
    return caller


class MembersOnly:
    """ASGI middleware: makes the Caller of each request. Raises UnauthenticatedError, PermissionDeniedError.

    own: this locator.
    """

    def __init__(self, app: ASGIApp, own: Member, callers: Callers) -> None:
        self._app = app
        self._own = own
        self._callers = callers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on a request that its client may make."""
        if scope["type"] == "http" and scope["path"] not in PROBES:
            scope[CALLER] = await self._caller(scope)
        await self._app(scope, receive, send)

    async def _caller(self, scope: Scope) -> Caller:
        client: TlsClient | None = scope.get(CLIENT)
        if client is None:
            raise UnauthenticatedError("a connection with TLS is needed")
        if client.member is not None:
            check_role(client.member, self._own, USERS, "use the locator")
        token = bearer_token(value for name, value in scope["headers"] if name == _AUTHORIZATION)
        return await self._callers.client(client.member, token)
