"""By which name a server was reached.

A page anywhere on the web can have its own name resolve to an address of this machine ("DNS rebinding"); it is of the
server's origin for the browser then, and reads all answers. The name in its requests gives it away.
"""

import socket
from ipaddress import ip_address

from minga_core.errors import PermissionDeniedError

LOCAL_NAMES = frozenset(("localhost", socket.gethostname().lower()))
"""Of this machine, whatever addresses a server has."""


def own_names(*hosts: str) -> frozenset[str]:
    """Names of this machine, with those given. Blocking: asks the resolver."""
    return LOCAL_NAMES | {host.lower() for host in (socket.getfqdn(), *hosts) if host}


def check_host(host: str | None, names: frozenset[str]) -> None:
    """Raises PermissionDeniedError for a `Host` that is none of the names. Any address is good, since a page elsewhere
    has no name that is one; and so is None, since a browser always sends the header."""
    if host is None or (name := _name_of(host)) in names or _is_address(name):
        return
    raise PermissionDeniedError(
        f"{host[:80]!r} is no name of this machine", hint="use its address, its own name, or localhost"
    )


def _name_of(host: str) -> str:
    """The host of a `Host` header, in lower case."""
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdigit() else host).strip("[]").rstrip(".").lower()


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
