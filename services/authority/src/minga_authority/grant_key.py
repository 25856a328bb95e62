"""The key that signs grants and join tokens, both JSON Web Tokens (RFC 7519) signed with Ed25519."""

import base64
import hashlib
import json
from collections.abc import Mapping
from typing import Any, Self

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from minga_core.errors import UnauthenticatedError

ALGORITHM = "EdDSA"
MAX_TIME = 253_402_300_800
"""Of the year 10,000, in seconds since 1970: further ones are in no calendar."""


class GrantKey:
    """A private key, with the id under which its public one is known."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.jwk = _public_jwk(key.public_key())
        self.kid: str = self.jwk["kid"]

    @classmethod
    def make(cls) -> Self:
        """A new one."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def load(cls, pem: bytes) -> Self:
        """Raises ValueError, and TypeError for a key of another kind or with a password."""
        key = serialization.load_pem_private_key(pem, None)
        if not isinstance(key, Ed25519PrivateKey):
            raise TypeError("it is not an Ed25519 key")
        return cls(key)

    @property
    def pem(self) -> bytes:
        """In PKCS #8, without a password."""
        return self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def sign(self, claims: Mapping[str, Any]) -> str:
        """A JSON Web Token."""
        return jwt.encode(dict(claims), self._key, ALGORITHM, headers={"kid": self.kid})


def verified(token: str, keys: Mapping[str, Any], issuer: str, audience: str, now: float) -> dict[str, Any]:
    """The claims of a token that one of the keys has signed. keys: a JWKS. now: Unix time.

    Raises UnauthenticatedError.
    """
    try:
        kid = jwt.get_unverified_header(token).get("kid")
        known = next((key for key in keys["keys"] if key["kid"] == kid), None)
        if known is None:
            raise UnauthenticatedError("it was made by another authority, or by a key that is not in use any more")
        options: Any = {"require": ["exp", "iss", "aud", "jti"], "verify_exp": False, "verify_iat": False}
        claims: dict[str, Any] = jwt.decode(
            token, jwt.PyJWK(known).key, [ALGORITHM], issuer=issuer, audience=audience, options=options
        )
    except jwt.DecodeError as error:
        # Its text is of bytes, and a signature that does not match is one of these.
        raise UnauthenticatedError("it is not what was printed: copy all of it") from error
    except jwt.PyJWTError as error:
        raise UnauthenticatedError(f"it does not verify: {error}") from error
    if not isinstance(claims["jti"], str) or not claims["jti"].isascii():
        raise UnauthenticatedError("its id is no text")
    end = claims["exp"]
    if not isinstance(end, int | float) or not end < MAX_TIME:
        raise UnauthenticatedError("its end is no time")
    if end <= now:
        raise UnauthenticatedError("it has expired")
    return claims


def jwks(*keys: GrantKey) -> str:
    """The public keys as a JSON Web Key Set (RFC 7517)."""
    return json.dumps({"keys": [key.jwk for key in keys]}, indent=2) + "\n"


def _public_jwk(key: Ed25519PublicKey) -> dict[str, str]:
    raw = key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    x = base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
    # RFC 7638: the id is a digest of the key itself.
    thumbprint = hashlib.sha256(f'{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}'.encode()).hexdigest()[:16]
    return {"kty": "OKP", "crv": "Ed25519", "x": x, "kid": thumbprint, "alg": ALGORITHM, "use": "sig"}
