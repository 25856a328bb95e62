"""The authority's folder: its keys, and what network it is of. Read again when a file in it has changed.

Keys are added in front: `minga ca rotate` makes one that all members learn to trust before it signs anything, and what
came before it is trusted until nothing that it signed is valid.
"""

import hashlib
import json
import os
import re
import secrets
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from shutil import rmtree
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from minga_authority.certificates import BACKDATED, CA_LIFE, CertificateAuthority, moment, pem
from minga_authority.grant_key import GrantKey, jwks
from minga_core.errors import AlreadyRunningError, SettingsError, StorageError
from minga_runtime.trust.authority_call import AUTHORITY_HOST
from minga_runtime.trust.private_files import write_private

SETTLE = timedelta(minutes=10)
"""A new key signs after so long: all members ask for the keys to trust once a minute."""
NETWORK_FILE = "network.json"
CA_FILES = ("ca.crt", "ca.key")
SERVER_FILES = ("server.crt", "server.key")
GRANT_KEY_FILE, GRANT_KEYS_FILE = "grant.key", "grant-keys.json"
PUBLICATION_KEY_FILE = "publication.key"
_BLOCK = re.compile(rb"-----BEGIN [A-Z ]+-----.+?-----END [A-Z ]+-----\n?", re.DOTALL)
_NETWORK = re.compile(r"[a-z0-9._-]{1,255}")


@dataclass(frozen=True, slots=True)
class Network:
    """What is the same for all members."""

    network: str
    url: str
    """Where the authority serves: https://host:port."""
    registry: str = ""
    """host:port for peers; empty where tokens do not say it."""
    locator: str = ""
    """URL for peers and commands; empty where tokens do not say it."""

    def __post_init__(self) -> None:
        if not _NETWORK.fullmatch(self.network):
            raise SettingsError(f"{self.network[:80]!r} is not a network's name: 1 to 255 of a-z 0-9 . _ -")


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of the folder, newest first."""

    network: Network
    cas: tuple[CertificateAuthority, ...]
    grant_keys: tuple[tuple[GrantKey, float], ...]
    """With the Unix time at which each was made."""
    publication_key: str

    def signing_ca(self, now: float) -> CertificateAuthority:
        """The newest that members trust by now."""
        settled = (ca for ca in self.cas if _made(ca.certificate) + SETTLE <= moment(now))
        return next(settled, self.cas[-1])

    def trusted_cas(self, now: float, life: timedelta) -> tuple[CertificateAuthority, ...]:
        """Those that members trust, newest first. life: that of certificates."""
        return self.cas[: 1 + _still_trusted([_made(ca.certificate) for ca in self.cas[:-1]], moment(now), life)]

    def signing_grant_key(self, now: float) -> GrantKey:
        """The newest that members trust by now."""
        settled = (key for key, made in self.grant_keys if made + SETTLE.total_seconds() <= now)
        return next(settled, self.grant_keys[-1][0])

    def trusted_grant_keys(self, now: float, life: timedelta) -> tuple[GrantKey, ...]:
        """Those that members trust, newest first."""
        count = _still_trusted([moment(made) for _, made in self.grant_keys[:-1]], moment(now), life)
        return tuple(key for key, _ in self.grant_keys[: 1 + count])


class AuthorityFolder:
    """A folder that `init` has made; for any thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._seen: tuple[int, ...] = ()
        self._keys: Keys | None = None

    def file(self, name: str) -> Path:
        """The path of one of the folder's files."""
        return self.path / name

    def keys(self) -> Keys:
        """What is in it now. Raises SettingsError."""
        with self._lock:
            try:
                seen = tuple(self.file(name).stat().st_mtime_ns for name in (CA_FILES[1], GRANT_KEY_FILE, NETWORK_FILE))
                if self._keys is None or seen != self._seen:
                    self._keys, self._seen = self._read(), seen
            except FileNotFoundError as error:
                reason, hint = f"there is no {Path(error.filename).name}", "`minga ca init` makes one"
                raise SettingsError(f"{self.path} is not an authority's folder: {reason}", hint=hint) from error
            except (OSError, ValueError, TypeError, KeyError) as error:
                raise SettingsError(f"{self.path} is not an authority's folder: {error}") from error
            return self._keys

    def add_ca(self, now: float) -> None:
        """Make a further CA. Raises SettingsError, StorageError."""
        keys = self.keys()
        _write(self.path, _ca_files((CertificateAuthority.make(keys.network.network, moment(now)), *keys.cas)))

    def add_grant_key(self, now: float) -> None:
        """Make a further key for grants. Raises SettingsError, StorageError."""
        _write(self.path, _grant_files(((GrantKey.make(), now), *self.keys().grant_keys)))

    def write_server_files(self, into: Path, now: float, life: timedelta) -> tuple[Path, Path]:
        """Make the certificate and the key with which the authority serves, of the CA that is trusted longest. Raises
        SettingsError, StorageError."""
        ca = self.keys().trusted_cas(now, life)[-1]
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = ca.issue(key.public_key(), None, [AUTHORITY_HOST], moment(now), CA_LIFE, serves=True)
        found = into / SERVER_FILES[0], into / SERVER_FILES[1]
        _write(into, dict(zip(SERVER_FILES, (pem(certificate), _private_pem(key)), strict=True)))
        return found

    def _read(self) -> Keys:
        certificates = x509.load_pem_x509_certificates(self.file(CA_FILES[0]).read_bytes())
        privates = [_ca_key(block) for block in _BLOCK.findall(self.file(CA_FILES[1]).read_bytes())]
        grant_keys = [GrantKey.load(block) for block in _BLOCK.findall(self.file(GRANT_KEY_FILE).read_bytes())]
        made = {key["kid"]: float(key["iat"]) for key in json.loads(self.file(GRANT_KEYS_FILE).read_text())["keys"]}
        return Keys(
            Network(**json.loads(self.file(NETWORK_FILE).read_text())),
            tuple(CertificateAuthority(*pair) for pair in zip(certificates, privates, strict=True)),
            tuple((key, made[key.kid]) for key in grant_keys),
            self.file(PUBLICATION_KEY_FILE).read_text(),
        )


def init(path: Path, network: Network, now: float) -> AuthorityFolder:
    """Make an authority's folder, all of it or nothing. Raises AlreadyRunningError when there is something at `path`,
    StorageError."""
    path = path.absolute()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
        try:
            for name, content in new_files(network, now).items():
                write_private(temporary / name, content)
            # Fails unless there is nothing, or an empty folder.
            temporary.rename(path)
        except BaseException:
            rmtree(temporary, ignore_errors=True)
            raise
    except OSError as error:
        if path.exists() and os.listdir(path):
            raise AlreadyRunningError(f"{path} has something in it: an authority is never overwritten") from error
        raise StorageError(f"cannot make {path}: {error.strerror}") from error
    return AuthorityFolder(path)


def new_files(network: Network, now: float) -> dict[str, str | bytes]:
    """The contents of a new authority's folder, by file name."""
    return {
        NETWORK_FILE: json.dumps(asdict(network), indent=2) + "\n",
        PUBLICATION_KEY_FILE: secrets.token_hex(32) + "\n",
        **_ca_files((CertificateAuthority.make(network.network, moment(now)),)),
        **_grant_files(((GrantKey.make(), now),)),
    }


def ca_digest(ca: CertificateAuthority) -> str:
    """SHA-256 of a CA's certificate, in hex."""
    return hashlib.sha256(ca.certificate.public_bytes(serialization.Encoding.DER)).hexdigest()


def _write(folder: Path, files: Mapping[str, str | bytes]) -> None:
    try:
        for name, content in files.items():
            write_private(folder / name, content)
    except OSError as error:
        raise StorageError(f"cannot write {folder}: {error.strerror}") from error


def _ca_files(cas: tuple[CertificateAuthority, ...]) -> dict[str, str | bytes]:
    # The certificates first: `keys` looks at the time of the other file.
    return {
        CA_FILES[0]: pem(*(ca.certificate for ca in cas)),
        CA_FILES[1]: b"".join(_private_pem(ca.key) for ca in cas),
    }


def _grant_files(keys: tuple[tuple[GrantKey, float], ...]) -> dict[str, str | bytes]:
    public: dict[str, Any] = json.loads(jwks(*(key for key, _ in keys)))
    for jwk, (_, made) in zip(public["keys"], keys, strict=True):
        jwk["iat"] = made
    return {
        GRANT_KEYS_FILE: json.dumps(public, indent=2) + "\n",
        GRANT_KEY_FILE: b"".join(key.pem for key, _ in keys),
    }


def _still_trusted(successors: list[datetime], now: datetime, life: timedelta) -> int:
    """How many of the older keys are trusted. successors: when the next newer one of each was made, newest first."""
    return sum(1 for made in successors if now < made + SETTLE + 2 * life)


def _made(certificate: x509.Certificate) -> datetime:
    return certificate.not_valid_before_utc + BACKDATED


def _ca_key(block: bytes) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(block, None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError("the CA's key is not of an elliptic curve")
    return key


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
