"""Addresses to listen on, as text. Imports no gRPC, for settings and the metrics endpoint."""

from ipaddress import ip_address

from minga_core.errors import InvalidArgumentError


def split_listen(listen: str) -> tuple[str, int]:
    """Split `host:port` into host (IPv6 without brackets) and port; port 0 is allowed. Raises InvalidArgumentError."""
    host, colon, port = listen.rpartition(":")
    good_port = port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= 65535
    good_host = host.isprintable() and not any(char in host for char in " /@")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or not host or not good_port or not good_host or (":" in host and not bracketed):
        raise InvalidArgumentError(
            f"{listen[:80]!r} is not an address to listen on: use host:port, with IPv6 hosts in brackets"
        )
    return host.strip("[]"), int(port)


def bound_address(listen: str, port: int) -> str:
    """`listen` with its port replaced by the bound one."""
    return f"{listen.rpartition(':')[0]}:{port}"


def is_loopback(listen: str) -> bool:
    """Whether only this host reaches what listens there: an address of the loopback, or `localhost`. No other name is
    looked up, since what it stands for may change."""
    host, _ = split_listen(listen)
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
