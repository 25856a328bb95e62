"""Who may use the gateway: by the host that a browser thinks it talks to, by the page that asks, and by a grant.

A page anywhere on the web can make a browser on this machine send requests here. So the name by which it was reached
must be this machine's own (a page cannot make another name resolve to this address then, "DNS rebinding"), and the
page must come from here or from the locator.
"""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from minga_core.errors import PermissionDeniedError, UnauthenticatedError
from minga_runtime.trust.callers import OPEN, Caller, Callers, bearer_token
from minga_runtime.trust.rights import NONE, Rights
from minga_runtime.web.hosts import check_host
from minga_runtime.web.members import TlsClient

_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
_CORS_HEADERS = (
    "Authorization, Content-Type, Range, If-Range, If-Match, If-None-Match, If-Modified-Since, Tus-Resumable, "
    "Upload-Length, Upload-Offset, Upload-Metadata"
)
_EXPOSED_HEADERS = (
    "Accept-Ranges, Content-Disposition, Content-Range, ETag, Location, Retry-After, Tus-Extension, Tus-Resumable, "
    "Tus-Version, Upload-Expires, Upload-Length, Upload-Metadata, Upload-Offset, X-Minga-Source"
)


@dataclass(frozen=True, slots=True)
class Guard:
    """What requests over TCP must show. hosts: names of this machine, in lower case. locator: its URL."""

    hosts: frozenset[str]
    locator: str
    callers: Callers | None = None
    """None in an open network."""
    default: Rights = NONE
    """Of those without a grant, in a secure network."""
    both: bool = False
    """Whether those without a grant may do everything, as in an open network."""
    loopback: bool = False
    """Whether programs of this machine alone reach the port."""
    _origins: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_origins", origins_of(self.locator))

    def check_host(self, headers: Mapping[str, str]) -> None:
        """Raises PermissionDeniedError for a name that is none of this machine."""
        check_host(headers.get("host"), self.hosts)

    def allowed_origin(self, scheme: str, headers: Mapping[str, str]) -> str | None:
        """The page's origin, when the answer must say that it may be read there; None for pages of the gateway itself
        and for what is no page. Raises PermissionDeniedError for pages from elsewhere."""
        origin = headers.get("origin")
        if origin is None or origin.lower() == f"{scheme}://{headers.get('host', '')}".lower():
            if headers.get("sec-fetch-site") == "cross-site" and headers.get("sec-fetch-mode") != "navigate":
                raise _from_elsewhere("another site")
            return None
        if origin.lower() in self._origins:
            return origin
        raise _from_elsewhere(origin)

    async def caller(self, client: TlsClient | None, headers: Mapping[str, str]) -> Caller:
        """Who asks. Raises UnauthenticatedError for a grant that is none."""
        if self.callers is None:
            return OPEN
        token, member = _token(headers.get("authorization")), None if client is None else client.known_member
        if token or member is not None:
            return await self.callers.client(member, token)
        return OPEN if self.both else Caller(None, "", self.default)


def cors(origin: str) -> dict[str, str]:
    """Headers that let a page of that origin read an answer."""
    return {"Access-Control-Allow-Origin": origin, "Access-Control-Expose-Headers": _EXPOSED_HEADERS, "Vary": "Origin"}


PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, HEAD, PUT, DELETE, POST, PATCH, OPTIONS",
    "Access-Control-Allow-Headers": _CORS_HEADERS,
    "Access-Control-Allow-Private-Network": "true",
    "Access-Control-Max-Age": "600",
}
"""Headers of the answer to a preflight, with those of `cors`."""


def origins_of(url: str) -> frozenset[str]:
    """The origins of a service, which on this machine has several names."""
    parts = urlsplit(url.lower())
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
    port = f":{parts.port}" if parts.port and parts.port != {"http": 80, "https": 443}.get(parts.scheme) else ""
    return frozenset(f"{parts.scheme}://{name}{port}" for name in (_LOOPBACK if host in _LOOPBACK else (host,)))


def _from_elsewhere(origin: str) -> PermissionDeniedError:
    return PermissionDeniedError(
        f"a page of {origin[:80]} may not use this gateway", hint="pages of the locator at MINGA_LOCATOR may"
    )


def _token(authorization: str | None) -> str:
    """The grant in a header: a bearer token, or the password of Basic. Raises UnauthenticatedError."""
    if authorization is None:
        return ""
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() != "basic":
        return bearer_token([authorization])
    try:
        return base64.b64decode(value.strip(), validate=True).decode().partition(":")[2]
    except (binascii.Error, ValueError):
        raise UnauthenticatedError("`authorization` has no name and password") from None
