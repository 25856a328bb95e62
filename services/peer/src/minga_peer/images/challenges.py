"""What a registry demands with a 401: `WWW-Authenticate: Bearer realm="…",service="…",scope="…"`. Pure."""

import re
from dataclasses import dataclass
from urllib.parse import urlencode

_PARAMETER = re.compile(r'\s*([a-z_]{1,32})\s*=\s*(?:"([^"\\]{0,2000})"|([^\s",]{1,2000}))\s*(?:,|$)', re.IGNORECASE)
_BEARER = re.compile(r"(?:^|,)\s*bearer\s+", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Challenge:
    """Where a token is to be had."""

    realm: str
    service: str
    scope: str

    def url(self, repository: str) -> str:
        """Asks for a token, without credentials, with which that repository can be pulled."""
        query = {"service": self.service, "scope": self.scope or f"repository:{repository}:pull"}
        joint = "&" if "?" in self.realm else "?"
        return self.realm + joint + urlencode({key: value for key, value in query.items() if value})


def parse_challenge(header: str) -> Challenge | None:
    """What a token answers, of one or several challenges; None when there is none, as with Basic alone."""
    bearer = _BEARER.search(header)
    if bearer is None:
        return None
    found: dict[str, str] = {}
    position = bearer.end()
    while (parameter := _PARAMETER.match(header, position)) is not None:
        name, quoted, plain = parameter.groups()
        found[name.lower()] = quoted if quoted is not None else plain
        position = parameter.end()
    realm = found.get("realm", "")
    if not realm.lower().startswith(("http://", "https://")):
        return None
    return Challenge(realm, found.get("service", ""), found.get("scope", ""))
