"""Members of a secure network: who a certificate says that its owner is (docs/adr/0033).

A certificate names its owner by one URI, `spiffe://NETWORK/ROLE/NAME`. Nothing here reads files or opens connections.
"""

import math
import re
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from minga_core.errors import Refusal, UnauthenticatedError

PEER_DOMAIN = ".peer.minga"
"""Behind a peer's id this makes the DNS name in its certificate, which no host of a registry or locator has."""
MEMBER_SCHEME = "spiffe://"


class Role(StrEnum):
    """What a member may be."""

    PEER = "peer"
    REGISTRY = "registry"
    LOCATOR = "locator"
    CLIENT = "client"
    ADMIN = "admin"


USERS = frozenset({Role.PEER, Role.CLIENT, Role.ADMIN})
"""Those that look up, fetch and upload."""
SERVERS = frozenset({Role.PEER, Role.REGISTRY, Role.LOCATOR})

_MEMBER = re.compile(
    rf"{MEMBER_SCHEME}(?P<network>[a-z0-9._-]{{1,255}})/(?P<role>{'|'.join(Role)})/(?P<name>[A-Za-z0-9][A-Za-z0-9._-]{{0,127}})"
)


@dataclass(frozen=True, slots=True)
class Member:
    """The owner of a certificate. name: for a peer its peer id."""

    network: str
    role: Role
    name: str

    def __str__(self) -> str:
        return f"{self.role} {self.name}"

    @property
    def uri(self) -> str:
        """As certificates and grants name it."""
        return f"{MEMBER_SCHEME}{self.network}/{self.role}/{self.name}"


def member_of(uris: Iterable[str]) -> Member:
    """The member that the URIs of a certificate name. Raises UnauthenticatedError unless exactly one does."""
    found = list(uris)
    match = _MEMBER.fullmatch(found[0]) if len(found) == 1 else None
    if match is None:
        raise UnauthenticatedError(
            "the certificate names no member: it needs one URI, spiffe://NETWORK/ROLE/NAME, "
            f"with {', '.join(Role)} as the role",
            refusal=Refusal.NO_CERTIFICATE,
        )
    return Member(match["network"], Role(match["role"]), match["name"])


def member_at(connection: ssl.SSLObject) -> Member:
    """The member at the other end, whose certificate the handshake has verified. Raises UnauthenticatedError."""
    if not connection.getpeercert():
        raise UnauthenticatedError(
            "a certificate of this network is needed",
            hint="set MINGA_TLS_CERT, _KEY and _CA",
            refusal=Refusal.NO_CERTIFICATE,
        )
    return member_of(names_at(connection, "URI"))


def names_at(connection: ssl.SSLObject, kind: str) -> list[str]:
    """The alternative names of one kind (`URI`, `DNS`) in the certificate at the other end."""
    certificate: Mapping[str, Any] = connection.getpeercert() or {}
    return [str(value) for found, value in certificate.get("subjectAltName", ()) if found == kind]


def expires_at(connection: ssl.SSLObject) -> float:
    """When the certificate at the other end ends, in seconds since 1970; never without one."""
    certificate: Mapping[str, Any] = connection.getpeercert() or {}
    return ssl.cert_time_to_seconds(certificate["notAfter"]) if "notAfter" in certificate else math.inf


def check_server(found: Member, own: Member, role: Role, name: str = "") -> None:
    """Check who has answered. name: any unless given. Raises UnauthenticatedError."""
    wanted = f"{role} {name}".strip()
    if found.role is not role or (name and found.name != name):
        raise UnauthenticatedError(f"what answers is {found}, not {wanted}")
    if found.network != own.network:
        raise UnauthenticatedError(f"what answers is of the network {found.network}, not {own.network}")
