"""An issuer of grants for tests: good ones and every kind of bad one."""

import json
import time
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

_KEYS: dict[str, Any] = {
    "EdDSA": ed25519.Ed25519PrivateKey.generate,
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "RS256": lambda: rsa.generate_private_key(65537, 2048),
}
_ALGORITHMS = jwt.algorithms.get_default_algorithms()


class Issuer:
    """A key that signs grants. issuer: as `iss`; of the network's own authority unless given."""

    def __init__(self, network: str = "test", *, key_id: str = "1", algorithm: str = "EdDSA", issuer: str = "") -> None:
        self.network = network
        self.issuer = issuer or f"minga:{network}"
        self.key_id, self.algorithm = key_id, algorithm
        self.key = _KEYS[algorithm]()

    @property
    def jwk(self) -> dict[str, Any]:
        """The public key."""
        jwk = json.loads(_ALGORITHMS[self.algorithm].to_jwk(self.key.public_key()))  # type: ignore[attr-defined]
        return {**jwk, "kid": self.key_id, "use": "sig"}

    def claims(self, subject: str, *, read: tuple[str, ...] = (), publish: tuple[str, ...] = (), **changed: Any) -> Any:
        """The claims of a good grant with some changed; those that are None are left out."""
        now = int(time.time())
        rights = {"read": list(read), "publish": list(publish)}
        claims = {"iss": self.issuer, "aud": self.network, "sub": subject, "iat": now, "exp": now + 3600}
        return {name: value for name, value in ({**claims, "minga": rights} | changed).items() if value is not None}

    def grant(self, subject: str, *, read: tuple[str, ...] = (), publish: tuple[str, ...] = (), **changed: Any) -> str:
        """A grant. changed: claims in place of those of a good one."""
        return self.sign(self.claims(subject, read=read, publish=publish, **changed))

    def sign(self, claims: Any, **header: Any) -> str:
        """Any claims, signed."""
        return jwt.encode(claims, self.key, self.algorithm, headers={"kid": self.key_id} | header)


def key_set(*issuers: Issuer) -> str:
    """The JWK set of their public keys."""
    return json.dumps({"keys": [issuer.jwk for issuer in issuers]})


def write_keys(path: Path, *issuers: Issuer) -> Path:
    """Write their JWK set, as a renewal does: to another file that takes its place."""
    temporary = path.with_name(path.name + ".new")
    temporary.write_text(key_set(*issuers))
    temporary.replace(path)
    return path


def flipped(token: str, part: int) -> str:
    """The token with a bit in the first character of one of its three parts changed."""
    parts = token.split(".")
    parts[part] = chr(ord(parts[part][0]) ^ 1) + parts[part][1:]
    return ".".join(parts)
