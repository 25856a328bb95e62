"""Joining a network by a token, and renewing what that gave (docs/adr/0036).

The key is made here and leaves its folder never. The authority is trusted by the hash of its CA in the token.
"""

import asyncio
import base64
import hashlib
import json
import ssl
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minga_core.errors import InvalidArgumentError, StorageError, UnauthenticatedError
from minga_runtime.trust.authority_call import call_authority
from minga_runtime.trust.credentials_folder import CA, CERTIFICATE, KEY, Joined, keep_membership, make_ours, write_key

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

MAX_TOKEN_CHARACTERS = 16 * 1024


@dataclass(frozen=True, slots=True)
class JoinToken:
    """What a join token says to its bearer; the authority alone can verify it."""

    text: str
    authority: str
    ca_sha256: str
    name: str
    """Who its bearer becomes; empty when the bearer may say it."""
    registry: str
    locator: str
    """Where they are; empty when the token does not say it."""

    @classmethod
    def parse(cls, text: str) -> "JoinToken":
        """Raises InvalidArgumentError."""
        try:
            payload = text[:MAX_TOKEN_CHARACTERS].split(".")[1]
            claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
            return cls(text, *(str(claims[name]) for name in ("ca", "ca_sha256", "name", "registry", "locator")))
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise InvalidArgumentError(
                "that is not a token for joining", hint="`minga token create` makes one"
            ) from error


async def join(token: JoinToken, folder: Path, name: str = "") -> Joined:
    """Become a member, and write its credentials folder. A key that is in it already is kept.

    name: who we want to be; needed where the token does not say it. Raises UnauthenticatedError, PermissionDeniedError,
    NameTakenError, InvalidArgumentError, UnavailableError, StorageError. Safe to repeat.
    """
    csr = _request(_own_key(folder))
    trusted = await _pinned(token)
    answer = await call_authority(
        token.authority, trusted, "POST", "/v1/join", {"token": token.text, "csr": csr, "name": name}
    )
    joined = Joined(token.authority, "", 0.0, token.registry, token.locator).renewed(answer)
    await asyncio.to_thread(keep_membership, folder, joined, answer)
    return joined


async def renew(folder: Path, joined: Joined) -> None:
    """A new certificate and a new grant for the key in a folder. Raises what `join` raises: UnauthenticatedError also
    for a certificate that has ended, with which nobody renews."""
    context, csr = await asyncio.to_thread(_renewal, folder)
    answer = await call_authority(joined.authority, context, "POST", "/v1/renew", {"csr": csr})
    await asyncio.to_thread(keep_membership, folder, joined.renewed(answer), answer)


def _renewal(folder: Path) -> tuple[ssl.SSLContext, str]:
    """What renewing takes: a context that shows our certificate, and a request."""
    _check_not_ended(folder / CERTIFICATE)
    key = _load_key(folder / KEY)
    try:
        context = ssl.create_default_context(cafile=str(folder / CA))
        context.load_cert_chain(folder / CERTIFICATE, folder / KEY)
    except OSError as error:
        raise StorageError(f"cannot use {folder}: {error}") from error
    return context, _request(key)


def _check_not_ended(path: Path) -> None:
    from cryptography import x509

    try:
        until = x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc
    except (OSError, ValueError) as error:
        raise StorageError(f"cannot read {path}: {error}") from error
    if until.timestamp() <= time.time():
        raise UnauthenticatedError(
            f"the certificate {path} ended at {until:%Y-%m-%dT%H:%M:%SZ}", hint="join again, with a new token"
        )


async def _pinned(token: JoinToken) -> ssl.SSLContext:
    """A context that trusts the CA of the token. Raises UnauthenticatedError, UnavailableError."""
    anybody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anybody.check_hostname = False
    anybody.verify_mode = ssl.CERT_NONE
    answer: dict[str, Any] = await call_authority(token.authority, anybody, "GET", "/v1/trust")
    for block in _certificates(str(answer.get("ca"))):
        try:
            der = ssl.PEM_cert_to_DER_cert(block)
        except ValueError:
            continue
        if hashlib.sha256(der).hexdigest() == token.ca_sha256:
            return ssl.create_default_context(cadata=der)
    raise UnauthenticatedError(
        f"what answers at {token.authority} is not the authority that made the token",
        hint="ask for a new token if its CA has been exchanged",
    )


def _certificates(pem: str) -> list[str]:
    end = "-----END CERTIFICATE-----"
    return [f"{block.strip()}\n{end}\n" for block in pem.split(end)[:-1]]


def _own_key(folder: Path) -> "EllipticCurvePrivateKey":
    """The key in a folder, which is made with a new one when there is none. Raises StorageError."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        make_ours(folder)
        if (folder / KEY).exists():
            return _load_key(folder / KEY)
    except OSError as error:
        raise StorageError(f"cannot make {folder}: {error.strerror}") from error
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    write_key(folder, pem)
    return key


def _load_key(path: Path) -> "EllipticCurvePrivateKey":
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        raise StorageError(f"cannot read {path}: {error}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise StorageError(f"{path} is not a key that `minga join` has made", hint="give another folder")
    return key


def _request(key: "EllipticCurvePrivateKey") -> str:
    """A certificate request that says nothing but which key: the authority knows the rest."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization

    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode()
