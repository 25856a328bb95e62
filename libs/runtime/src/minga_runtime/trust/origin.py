"""Where a request comes from: what quotas count by, and what an audit log names."""

from dataclasses import dataclass
from typing import Any, Self

from minga_core.errors import MingaError
from minga_runtime.quotas import host_of, plain_address
from minga_runtime.trust.members import Member, member_of

RELAYED: dict[str, Any] = {}
"""The other ends, as `getpeername` returns them, of connections that come through a relay of this process
(minga_runtime.both), by the address that they have here."""


@dataclass(frozen=True, slots=True)
class Origin:
    """The other end of a connection."""

    address: str
    """`10.0.0.1:4711`, `[::1]:4711` or `unix`; empty when it is gone already."""
    host: str
    """What quotas count the address by."""
    member: Member | None = None
    """None without a certificate, or with one that names nobody."""

    @classmethod
    def of_socket(cls, name: Any, member: Member | None = None) -> Self:
        """From what `getpeername` returns, or ASGI's `client`; None for a connection that is gone."""
        if not name:
            return cls("", "unknown", member)
        address = plain_address(str(name[0]))
        shown = f"[{address}]" if ":" in address else address
        return cls(f"{shown}:{name[1]}", host_of(address), member)

    @classmethod
    def of_rpc(cls, context: Any) -> Self:
        """From the context of a gRPC call."""
        kind, _, place = context.peer().replace("%5B", "[").replace("%5D", "]").partition(":")
        if kind not in ("ipv4", "ipv6"):
            return cls(kind, kind)
        host, _, port = place.rpartition(":")
        return cls.of_socket(RELAYED.get(place, (host.strip("[]"), port)), _member_in(context))

    @property
    def caller(self) -> str:
        """What quotas count by: the member, wherever it calls from; the host of one without a certificate."""
        return self.host if self.member is None else str(self.member)

    @property
    def who(self) -> str:
        """The member's URI, or the host."""
        return self.host if self.member is None else self.member.uri


def _member_in(context: Any) -> Member | None:
    uris = context.auth_context().get("peer_uri", ())
    try:
        return member_of(uri.decode() for uri in uris) if uris else None
    except MingaError:
        return None
