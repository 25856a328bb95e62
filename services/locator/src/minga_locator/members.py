"""In a secure network: requests of members alone, but for probes."""

import ssl
from functools import cached_property

from starlette.types import ASGIApp, Receive, Scope, Send

from minga_core.errors import UnauthenticatedError
from minga_runtime.trust.authorization import check_role
from minga_runtime.trust.members import USERS, Member, member_at

CLIENT = "minga.client"
"""In the scope of a request: the TlsClient of its connection."""
PROBES = frozenset({"/livez", "/readyz"})
"""Kubernetes asks these without a certificate."""


class TlsClient:
    """The other end of a connection with TLS, whose certificate is read once, not for each request."""

    def __init__(self, connection: ssl.SSLObject) -> None:
        self._connection = connection

    @cached_property
    def member(self) -> Member:
        """Who it is. Raises UnauthenticatedError."""
        return member_at(self._connection)


class MembersOnly:
    """ASGI middleware. Raises UnauthenticatedError, PermissionDeniedError. own: this locator."""

    def __init__(self, app: ASGIApp, own: Member) -> None:
        self._app = app
        self._own = own

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on a request that its client may make."""
        if scope["type"] == "http" and scope["path"] not in PROBES:
            client: TlsClient | None = scope.get(CLIENT)
            if client is None:
                raise UnauthenticatedError("a connection with TLS is needed")
            check_role(client.member, self._own, USERS, "use the locator")
        await self._app(scope, receive, send)
