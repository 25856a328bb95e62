"""Parse `MINGA_REDIS_URL`. No network, no files.

::

    redis://[user:password@]host[:port][/db][?parameters]            one server
    unix://[user:password@]/path[?db=1]                              one server, by its socket
    redis+sentinel://[user:password@]host[:port],…/service[/db]      the primary that the sentinels name
    redis+cluster://[user:password@]host[:port],…                    a Cluster, found through any of its nodes

`rediss` in place of `redis` makes all connections TLS. User and password are those of the servers; sentinels have
their own: `sentinel_username` and `sentinel_password`. `password_file` in place of the password names a file that
has it. Error messages never quote values, which may be passwords.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from redis.asyncio.connection import parse_url

from minga_core.errors import SettingsError
from minga_directory.passwords import PasswordFile


class Topology(Enum):
    """How many servers there are, and how they are found; the value is the suffix of the URL's scheme."""

    SINGLE = ""
    SENTINEL = "sentinel"
    CLUSTER = "cluster"


_SCHEMES = ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster")
_DEFAULT_PORTS = {Topology.SINGLE: 6379, Topology.SENTINEL: 26379, Topology.CLUSTER: 6379}
_PARAMETERS = {"client_name", "db", "max_connections", "password", "password_file", "username"}
_SENTINEL_PARAMETERS = {"sentinel_username", "sentinel_password"}
_TLS_PARAMETERS = {
    "ssl_ca_certs", "ssl_cert_reqs", "ssl_certfile", "ssl_check_hostname", "ssl_ciphers", "ssl_keyfile",
    "ssl_min_version", "ssl_password",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class StoreUrl:
    """A parsed URL."""

    topology: Topology
    options: Mapping[str, Any] = field(repr=False)
    """Arguments of a redis-py connection, without host and port."""
    nodes: tuple[tuple[str, int], ...] = ()
    """The server, the sentinels, or some nodes of the Cluster; empty for a socket."""
    service: str = ""
    sentinel_options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """Arguments of connections to the sentinels."""


def parse_store_url(url: str) -> StoreUrl:
    """Raises SettingsError that names what is wrong."""
    try:
        return _parse(url)
    except ValueError as error:
        raise SettingsError(f"MINGA_REDIS_URL: {error}") from None


def _parse(url: str) -> StoreUrl:
    parts = _split(url)
    base, _, kind = parts.scheme.partition("+")
    topology = Topology(kind)
    if base == "unix":
        return StoreUrl(topology, _options(url, _PARAMETERS))
    service, database = "", parts.path.strip("/")
    if topology is Topology.SENTINEL:
        service, _, database = database.partition("/")
        if not service:
            raise ValueError("the name of the service is missing: redis+sentinel://host:port,host:port/service")
    user, at, hosts = parts.netloc.rpartition("@")
    nodes = tuple(_node(host, _DEFAULT_PORTS[topology]) for host in hosts.split(","))
    if topology is Topology.SINGLE and len(nodes) > 1:
        raise ValueError("several hosts are for redis+sentinel:// and redis+cluster://")
    if database and not (database.isascii() and database.isdigit()):
        raise ValueError("the path is the number of a database")
    allowed = _PARAMETERS | (_TLS_PARAMETERS if base == "rediss" else set())
    allowed |= _SENTINEL_PARAMETERS if topology is Topology.SENTINEL else set()
    # redis-py reads one host only.
    options = _options(f"{base}://{user}{at}localhost/{database}?{parts.query}", allowed)
    if topology is Topology.CLUSTER and options.pop("db", 0):
        raise ValueError("a Cluster has database 0 only")
    own = {name.removeprefix("sentinel_"): options.pop(name) for name in _SENTINEL_PARAMETERS & options.keys()}
    tls = {name: value for name, value in options.items() if name in _TLS_PARAMETERS | {"connection_class"}}
    return StoreUrl(topology, options, nodes, unquote(service), tls | own)


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ValueError("is no URL; in a password, write [ and ] as %5B and %5D") from None
    if parts.fragment:
        raise ValueError("has a #; in a password, write it as %23")
    if parts.scheme not in _SCHEMES:
        raise ValueError(f"the scheme is none of {', '.join(_SCHEMES)} (such as redis+cluster://)")
    return parts


def _options(url: str, allowed: set[str]) -> dict[str, Any]:
    options: dict[str, Any] = dict(parse_url(url))
    options.pop("host", None)
    for name in sorted(options.keys() - allowed - {"connection_class", "path"}):
        raise ValueError(
            f"{name}: is for rediss:// alone"
            if name in _TLS_PARAMETERS
            else f"{name[:40]!r} is no parameter of this kind of URL"
        )
    if path := options.pop("password_file", ""):
        if options.pop("password", ""):
            raise ValueError("password_file: there is a password in the URL as well")
        options["credential_provider"] = PasswordFile(options.pop("username", ""), Path(path))
    if options.get("max_connections", 1) < 1:
        raise ValueError("max_connections is 1 or more")
    return options


def _node(text: str, default_port: int) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, default_port if parts.port is None else parts.port
    except ValueError:
        host, port = None, 0
    if not host or not 1 <= port <= 65535:
        raise ValueError(
            "host:port is wanted, the port a number from 1 to 65535; in a password, write / as %2F and ? as %3F"
        )
    return unquote(host), port
