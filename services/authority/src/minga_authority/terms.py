"""Under what terms somebody may be a member: what a join token promises, checked."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any, Self

from minga_core.errors import InvalidArgumentError
from minga_runtime.trust.members import PEER_DOMAIN, SERVERS, Role
from minga_runtime.trust.rights import Prefixes

MAX_HOSTS = 32
MAX_USES = 1_000_000_000
OUR_DOMAIN = ".minga"
"""Names below it say who somebody is in the network, and are the name of no host."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", re.ASCII)
_DNS = re.compile(r"(?=.{1,253}$)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Terms:
    """What the holder of a token becomes. Raises InvalidArgumentError for what nobody can be."""

    role: Role
    name: str = ""
    """Empty: the joiner names itself."""
    hosts: tuple[str, ...] = ()
    """Of a registry or locator: DNS names and IP addresses by which others reach it."""
    read: tuple[str, ...] = ()
    publish: tuple[str, ...] = ()
    """Prefixes of names, as `minga_runtime.trust.rights` has them."""
    uses: int = 1
    """How many may join; 0: any number."""

    def __post_init__(self) -> None:
        if self.name:
            check_name(self.name)
        if len(self.hosts) > MAX_HOSTS:
            raise InvalidArgumentError(f"at most {MAX_HOSTS} host names, not {len(self.hosts)}")
        for host in self.hosts:
            _check_host(host)
        if self.role in (Role.REGISTRY, Role.LOCATOR) and not self.hosts:
            raise InvalidArgumentError(f"the {self.role} needs the host names by which others reach it")
        if self.role not in (Role.REGISTRY, Role.LOCATOR) and self.hosts:
            raise InvalidArgumentError(f"a {self.role} has no host names in its certificate")
        Prefixes.parse(self.read)
        Prefixes.parse(self.publish)
        if not 0 <= self.uses <= MAX_USES:
            raise InvalidArgumentError(f"a token has 1 to {MAX_USES:,} uses; 0 for any number")

    @classmethod
    def from_claims(cls, claims: Mapping[str, Any]) -> Self:
        """What a token of ours says. Raises InvalidArgumentError."""
        try:
            role = Role(claims["role"])
            texts = {key: _texts(claims[key]) for key in ("hosts", "read", "publish")}
            return cls(role, str(claims["name"]), **texts, uses=int(claims["uses"]))
        except (KeyError, ValueError, TypeError, OverflowError) as error:
            raise InvalidArgumentError("it is not a token for joining") from error

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The reverse of `to_json`."""
        return cls.from_claims(json.loads(text))

    def to_json(self) -> str:
        """For the store."""
        return json.dumps(self.claims)

    @property
    def claims(self) -> dict[str, Any]:
        """For a token."""
        return {
            "role": str(self.role),
            "name": self.name,
            "hosts": list(self.hosts),
            "read": list(self.read),
            "publish": list(self.publish),
            "uses": self.uses,
        }

    @property
    def rights(self) -> dict[str, Any]:
        """The claim `minga` of a grant."""
        return {"read": list(self.read), "publish": list(self.publish), "admin": self.role is Role.ADMIN}

    @property
    def serves(self) -> bool:
        """Whether others connect to such a member."""
        return self.role in SERVERS

    def names_of(self, name: str) -> list[str]:
        """The host names in the certificate of a member of that name."""
        return [f"{name}{PEER_DOMAIN}"] if self.role is Role.PEER else list(self.hosts)


@dataclass(frozen=True, slots=True)
class Grant:
    """A bearer's grant. expires: Unix time."""

    jti: str
    subject: str
    expires: float
    rights: Mapping[str, Any] = field(default_factory=dict)


def check_name(name: str) -> None:
    """Raises InvalidArgumentError."""
    if not _NAME.fullmatch(name):
        raise InvalidArgumentError(
            f"{name[:80]!r} is not a member's name: 1 to 128 of A-Z a-z 0-9 . _ -, starting with a letter or digit"
        )


def _check_host(host: str) -> None:
    try:
        ip_address(host)
        return
    except ValueError:
        pass
    if not _DNS.fullmatch(host) or f".{host}".endswith(OUR_DOMAIN):
        raise InvalidArgumentError(f"{host[:80]!r} is not a host's name: lower-case DNS, and not below {OUR_DOMAIN}")


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, Iterable) or isinstance(value, str):
        raise TypeError("a list is needed")
    return tuple(str(each) for each in value)
