"""What `MINGA_REDIS_URL` may name, and what is wrong with it. No network, no files.

::

    redis://[user:password@]host[:port][/db][?parameters]            one server
    unix://[user:password@]/path[?db=1]                              one server, by its socket
    redis+sentinel://[user:password@]host[:port],…/service[/db]      whatever server the sentinels call the primary
    redis+cluster://[user:password@]host[:port],…                    a Cluster, found through any of its nodes

With `rediss` in place of `redis` all connections are over TLS. User and password are those of the servers; sentinels
that want some have their own: `sentinel_username` and `sentinel_password`. Messages never show what was given, which
might be a password.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from redis.asyncio.connection import parse_url

from minga_core.errors import SettingsError

REDIS_PORT = 6379
SENTINEL_PORT = 26379


class Topology(Enum):
    """How many servers there are, and how they are found."""

    SINGLE = ""
    SENTINEL = "+sentinel"
    CLUSTER = "+cluster"


PARAMETERS = {"client_name", "db", "max_connections", "password", "username"}
TLS_PARAMETERS = {
    "ssl_ca_certs",
    "ssl_cert_reqs",
    "ssl_certfile",
    "ssl_check_hostname",
    "ssl_ciphers",
    "ssl_keyfile",
    "ssl_min_version",
    "ssl_password",
}
SENTINEL_PARAMETERS = {"sentinel_username", "sentinel_password"}


@dataclass(frozen=True, slots=True)
class StoreUrl:
    """A URL that may be connected to."""

    topology: Topology
    options: Mapping[str, Any] = field(repr=False)
    """Arguments of a redis-py connection; host and port only of a single server."""
    nodes: tuple[tuple[str, int], ...] = ()
    """The sentinels, or some nodes of the Cluster."""
    service: str = ""
    sentinel_options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """Arguments of connections to the sentinels."""


def parse_store_url(url: str) -> StoreUrl:
    """Raises SettingsError that says what is wrong."""
    try:
        return _parse(url)
    except ValueError as error:
        raise SettingsError(f"MINGA_REDIS_URL: {error}") from None


def _parse(url: str) -> StoreUrl:
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ValueError("is no URL; in a password, write [ and ] as %5B and %5D") from None
    if parts.fragment:
        raise ValueError("has a #; in a password, write it as %23")
    if parts.scheme == "unix":
        return StoreUrl(Topology.SINGLE, _options(parts, url))
    base, plus, kind = parts.scheme.partition("+")
    if base not in ("redis", "rediss") or plus + kind not in {each.value for each in Topology}:
        raise ValueError(
            "one of redis://, rediss://, unix://, redis+sentinel://, rediss+sentinel://, redis+cluster:// and "
            "rediss+cluster:// is wanted"
        )
    topology = Topology(plus + kind)
    if topology is Topology.SINGLE:
        return _single(parts)
    return _sentinel(parts, base) if topology is Topology.SENTINEL else _cluster(parts, base)


def _single(parts: SplitResult) -> StoreUrl:
    ((host, port),) = _nodes(parts, REDIS_PORT, at_most=1)
    options = _options(parts, _plain(parts, parts.scheme, parts.path))
    return StoreUrl(Topology.SINGLE, {"host": host, "port": port} | options)


def _sentinel(parts: SplitResult, base: str) -> StoreUrl:
    service, _, db = parts.path.removeprefix("/").partition("/")
    if not service:
        raise ValueError("the name of the service is missing: redis+sentinel://host:port,host:port/service")
    options = _options(parts, _plain(parts, base, f"/{db}"))
    own = {key.removeprefix("sentinel_"): options.pop(key) for key in SENTINEL_PARAMETERS & options.keys()}
    shared = {key: value for key, value in options.items() if key.startswith("ssl_") or key == "connection_class"}
    nodes = _nodes(parts, SENTINEL_PORT)
    return StoreUrl(Topology.SENTINEL, options, nodes, unquote(service), shared | own)


def _cluster(parts: SplitResult, base: str) -> StoreUrl:
    options = _options(parts, _plain(parts, base, parts.path))
    if options.pop("db", 0):
        raise ValueError("a Cluster has database 0 only")
    return StoreUrl(Topology.CLUSTER, options, _nodes(parts, REDIS_PORT))


def _plain(parts: SplitResult, scheme: str, path: str) -> str:
    """The URL for redis-py to read: without hosts, which it would take one of."""
    user, at, _ = parts.netloc.rpartition("@")
    database = path.strip("/")
    if database and not (database.isascii() and database.isdigit()):
        raise ValueError("the path is the number of a database")
    return f"{scheme}://{user}{at}localhost/{database}?{parts.query}"


def _options(parts: SplitResult, plain: str) -> dict[str, Any]:
    """Arguments of a connection. Raises ValueError for a parameter that is none, or not one of this kind of URL."""
    options: dict[str, Any] = dict(parse_url(plain))
    options.pop("host", None)
    allowed = PARAMETERS | {"connection_class", "path"}
    if parts.scheme.startswith("rediss"):
        allowed |= TLS_PARAMETERS
    if parts.scheme.endswith(Topology.SENTINEL.value):
        allowed |= SENTINEL_PARAMETERS
    for name in sorted(options.keys() - allowed):
        known = name in PARAMETERS | TLS_PARAMETERS | SENTINEL_PARAMETERS
        raise ValueError(f"{name}: is for rediss:// alone" if known and name in TLS_PARAMETERS else _unknown(name))
    if "max_connections" in options and options["max_connections"] < 1:
        raise ValueError("max_connections: 1 or more is wanted")
    return options


def _unknown(name: str) -> str:
    return f"{name[:40]!r} is no parameter of this kind of URL"


def _nodes(parts: SplitResult, default_port: int, *, at_most: int | None = None) -> tuple[tuple[str, int], ...]:
    found = []
    for text in parts.netloc.rpartition("@")[2].split(","):
        try:
            one = urlsplit(f"//{text}")
            host, port = one.hostname, one.port if one.port is not None else default_port
        except ValueError:
            host, port = None, 0
        if not host or not 1 <= port <= 65535:
            raise ValueError(
                "host:port is wanted, the port a number from 1 to 65535; in a password, write / as %2F and ? as %3F"
            )
        found.append((unquote(host), port))
    if at_most is not None and len(found) > at_most:
        raise ValueError("several hosts are for redis+sentinel:// and redis+cluster://")
    return tuple(found)
