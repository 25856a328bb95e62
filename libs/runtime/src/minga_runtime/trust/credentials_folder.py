"""A credentials folder: what `minga join` writes, MINGA_CREDENTIALS names, and renewal keeps good (docs/adr/0036)."""

import json
import os
import stat
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from minga_core.errors import SettingsError, StorageError, UnauthenticatedError, UnavailableError
from minga_runtime.trust.members import Member, member_of
from minga_runtime.trust.private_files import write_private, write_private_if_new

CERTIFICATE, KEY, CA = "cert.pem", "key.pem", "ca.pem"
GRANT, GRANT_KEYS, REVOKED, PUBLICATION_KEY = "grant.jwt", "grant-keys.json", "revoked", "publication.key"
AUTHORITY = "authority.json"
SETTINGS = {
    "tls_cert": CERTIFICATE,
    "tls_key": KEY,
    "tls_ca": CA,
    "grant": GRANT,
    "grant_keys": GRANT_KEYS,
    "revoked": REVOKED,
    "publication_key": PUBLICATION_KEY,
}
"""The settings that a folder stands for, and their files in it."""
WRITE_OF_OTHERS = stat.S_IWGRP | stat.S_IWOTH


@dataclass(frozen=True, slots=True)
class Joined:
    """Of what network a folder's owner is a member, and who it is."""

    authority: str
    """https://host:port"""
    member: str
    """Its URI."""
    life_seconds: float
    """How long its certificates are good from the moment when they are made."""
    registry: str = ""
    """host:port, where the token said it."""
    locator: str = ""
    """URL, where the token said it."""

    @classmethod
    def read(cls, folder: Path) -> "Joined | None":
        """None for a folder whose certificates come from elsewhere. Raises SettingsError."""
        try:
            found = json.loads((folder / AUTHORITY).read_text())
            texts = {name: str(found[name]) for name in ("authority", "member", "registry", "locator")}
            joined = cls(**texts, life_seconds=float(found["life_seconds"]))
            member_of([joined.member])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, UnauthenticatedError) as error:
            raise SettingsError(f"MINGA_CREDENTIALS: cannot read {folder / AUTHORITY}: {error}") from error
        return joined

    @property
    def owner(self) -> Member:
        """The member of that URI."""
        return member_of([self.member])

    def renewed(self, answer: Mapping[str, Any]) -> "Joined":
        """With what the authority answers. Raises UnavailableError."""
        try:
            joined = replace(self, member=str(answer["member"]), life_seconds=float(answer["life_seconds"]))
            member_of([joined.member])
        except (KeyError, ValueError, TypeError, UnauthenticatedError) as error:
            raise UnavailableError("what the authority answers lacks who we are") from error
        return joined


def settings_of(folder: Path) -> dict[str, str]:
    """Settings, by name, for the files that a credentials folder has, and for what is known of its network. Raises
    SettingsError."""
    if not (folder / CERTIFICATE).exists():
        raise SettingsError(f"MINGA_CREDENTIALS: there is no {folder / CERTIFICATE}; `minga join TOKEN` writes it")
    found = {name: str(folder / file) for name, file in SETTINGS.items() if (folder / file).exists()}
    joined = Joined.read(folder)
    if joined is not None:
        known = {"registry": joined.registry, "locator": joined.locator}
        if joined.owner.role == "peer":
            known["peer_id"] = joined.owner.name
        found |= {name: text for name, text in known.items() if text}
    return found


def keep_membership(folder: Path, joined: Joined, answer: Mapping[str, Any]) -> None:
    """Write who we are, and what the authority answers to joining and renewing. The certificate comes last, for it says
    that all is there. Raises UnavailableError, StorageError."""
    keep_trust(folder, answer)
    files = {GRANT: answer.get("grant"), CERTIFICATE: answer.get("certificate")}
    if "publication_key" in answer:
        files = {PUBLICATION_KEY: answer["publication_key"]} | files
    _write(folder, {AUTHORITY: json.dumps(asdict(joined), indent=2) + "\n"} | files)


def keep_trust(folder: Path, answer: Mapping[str, Any]) -> None:
    """Write what members check each other with, where it is another than before. Raises UnavailableError,
    StorageError."""
    revoked = answer.get("revoked")
    if not isinstance(revoked, list):
        raise UnavailableError("what the authority answers lacks who is revoked")
    lines = "".join(f"{line}\n" for line in revoked)
    _write(folder, {CA: answer.get("ca"), GRANT_KEYS: answer.get("grant_keys"), REVOKED: lines})


def _write(folder: Path, files: Mapping[str, Any]) -> None:
    for name, content in files.items():
        if not isinstance(content, str):
            raise UnavailableError(f"what the authority answers lacks {name}")
        try:
            write_private_if_new(folder / name, content)
        except (OSError, UnicodeDecodeError) as error:
            raise StorageError(f"cannot write {folder / name}: {error}") from error


def make_ours(folder: Path) -> None:
    """Check that nobody but us and root can exchange the files in a folder; take the right to write to it from others.
    Raises OSError, StorageError."""
    found = folder.stat()
    if found.st_uid not in (os.getuid(), 0):
        raise StorageError(f"{folder} belongs to another user", hint="give a folder of your own")
    if found.st_uid == os.getuid() and found.st_mode & WRITE_OF_OTHERS:
        folder.chmod(stat.S_IMODE(found.st_mode) & ~WRITE_OF_OTHERS)


def write_key(folder: Path, pem: bytes) -> None:
    """Write the private key. Raises StorageError."""
    try:
        write_private(folder / KEY, pem)
    except OSError as error:
        raise StorageError(f"cannot write {folder / KEY}: {error}") from error
