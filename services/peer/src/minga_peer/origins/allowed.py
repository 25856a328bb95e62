"""Which URLs may be fetched, and which addresses connected to (no open proxy, no way into the peer's own network)."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import unquote, urlsplit

from minga_core.errors import InvalidArgumentError, PermissionDeniedError
from minga_core.origin_names import Endpoints, prefix_url

MAX_URL_BYTES = 8192
_PORTS = {"http": 80, "https": 443}
# Printable ASCII without what no URL has as it is.
_URL = re.compile(r"[!#-;=?-\[\]_a-z~]+")
_NAT64 = ip_network("64:ff9b::/96")
_HOST = re.compile(r"[a-z0-9]([a-z0-9._-]{0,252}[a-z0-9])?\.?|[0-9a-f:.]+")
# Parameters by which a store knows who has signed a GET (S3 and Google, version 4).
_OF_SIGNATURE = re.compile(
    r"x-(?:amz|goog)-(?:algorithm|credential|date|expires|signedheaders|security-token|signature)=.*",
    re.IGNORECASE | re.DOTALL,
)
_SIGNATURE = re.compile(r"x-(?:amz|goog)-signature=.+", re.IGNORECASE | re.DOTALL)
_ANY_SIGNATURE = re.compile(r"(?:x-amz-signature|x-goog-signature|signature|sig)=.+", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Url:
    """A URL that may be asked for, in one spelling."""

    scheme: str
    host: str
    """In lower case, IPv6 without brackets."""
    port: int
    target: str
    """Path and query, as given."""

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]

    @property
    def authority(self) -> str:
        """Host and port as in a URL; the scheme's own port is left out."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def place(self) -> tuple[str, str, int]:
        """Where credentials may go that were meant for it."""
        return self.scheme, self.host, self.port

    @property
    def is_signed(self) -> bool:
        """Whether a signature in the query lets who has the URL have what others may not."""
        return any(_ANY_SIGNATURE.fullmatch(each) for each in self._parameters)

    @property
    def is_for_get(self) -> bool:
        """Whether a signature is for GET, as those of S3 and Google are, each for one method."""
        return any(_SIGNATURE.fullmatch(each) for each in self._parameters)

    @property
    def unsigned(self) -> "Url":
        """The same without such a signature, which differs each time: what all who sign it ask for."""
        if not self.is_for_get:
            return self
        query = "&".join(each for each in self._parameters if not _OF_SIGNATURE.fullmatch(each))
        return replace(self, target=f"{self.path}?{query}" if query else self.path)

    @property
    def _parameters(self) -> list[str]:
        return self.target.partition("?")[2].split("&")

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.target}"


def parse_url(text: str) -> Url:
    """The http or https URL that `text` spells; its fragment is left out. Raises InvalidArgumentError."""
    shown = text[:100]
    if len(text) > MAX_URL_BYTES or not _URL.fullmatch(text):
        raise InvalidArgumentError(f"{shown!a} is not a URL: other characters must be percent-encoded")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise InvalidArgumentError(f"{shown!r} is not a URL: {error}") from error
    scheme, host = parts.scheme.lower(), (parts.hostname or "").lower()
    if scheme not in _PORTS or not _HOST.fullmatch(host):
        raise InvalidArgumentError(f"{shown!r} is not a URL with http:// or https:// and a host")
    if parts.username is not None or parts.password is not None:
        raise InvalidArgumentError(
            "a URL with a name or password is not fetched: they would be part of the file's name"
        )
    path = parts.path or "/"
    if {".", ".."} & set(unquote(path).split("/")):
        raise InvalidArgumentError(f"{shown!r} has a '.' or '..' part")
    query = f"?{parts.query}" if parts.query else ""
    return Url(scheme, host.removesuffix("."), port or _PORTS[scheme], path + query)


class Allowed:
    """Prefixes of URLs. Those of the settings let others fetch; any of them names what is not on the public network.

    prefixes: of URLs, or of names as `s3://bucket/`, each up to a `/` of its path or to its end. registries: the same,
    of what this peer asks by itself: they let nobody fetch anything else. endpoints: what names stand for. Raises
    InvalidArgumentError.
    """

    def __init__(
        self, prefixes: Iterable[str] = (), registries: Iterable[str] = (), endpoints: Endpoints | None = None
    ) -> None:
        self._prefixes = [parse_url(prefix_url(prefix, endpoints or Endpoints())) for prefix in prefixes]
        self._reached = [*self._prefixes, *(parse_url(prefix) for prefix in registries)]

    def check(self, url: Url) -> None:
        """Raises PermissionDeniedError for a URL that only the owner of this peer may have fetched."""
        if not any(_begins(url, prefix) for prefix in self._prefixes):
            raise PermissionDeniedError(
                f"this peer fetches nothing from {url.scheme}://{url.authority} for others",
                hint="MINGA_FETCH_ALLOW names what it does",
            )

    def check_address(self, url: Url, address: str) -> None:
        """Raises PermissionDeniedError for an address that is not on the public network, unless a prefix names it."""
        if any(_begins(url, prefix) for prefix in self._reached):
            return
        found = _stands_for(address)
        if not found.is_global or found.is_multicast:
            raise PermissionDeniedError(
                f"{url.host} is {address}, which is not on the public network",
                hint="MINGA_FETCH_ALLOW names what is fetched from other networks",
            )


def parse_prefixes(text: str) -> list[str]:
    """The prefixes of a setting. Raises InvalidArgumentError."""
    found = [part.strip() for part in text.split(",") if part.strip()]
    Allowed(found)
    return found


def _stands_for(address: str) -> IPv4Address | IPv6Address:
    """The address itself, or the IPv4 address that is written in an IPv6 one."""
    found = ip_address(address.partition("%")[0])
    if isinstance(found, IPv4Address):
        return found
    if found in _NAT64:
        return IPv4Address(int(found) & 0xFFFFFFFF)
    return found.ipv4_mapped or found.sixtofour or found


def _begins(url: Url, prefix: Url) -> bool:
    path = prefix.path.removesuffix("/")
    return url.place == prefix.place and (url.path == path or url.path.startswith(f"{path}/"))
