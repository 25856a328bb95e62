"""The grant of this process, which it shows to others: it does not verify it."""

import base64
import json
import re
from dataclasses import dataclass
from pathlib import Path

from minga_core.errors import InvalidArgumentError
from minga_runtime.trust.members import MEMBER_SCHEME
from minga_runtime.trust.watched_file import WatchedFile

AUTHORIZATION = "authorization"
"""Header of HTTP and key of gRPC's metadata."""
MAX_GRANT_BYTES = 8 * 1024
_JWT = re.compile(rb"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")


class OwnGrant:
    """A grant in a file, read again when it changes; for any thread. Raises SettingsError at the start when the file is
    no good."""

    def __init__(self, path: Path) -> None:
        self._file = WatchedFile(path, "MINGA_GRANT", _parsed)

    @property
    def header(self) -> str:
        """The value of AUTHORIZATION for the locator."""
        return self._file.current().header

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """gRPC metadata for registry and peers: empty for a grant of no member, which anybody who sees it could use."""
        found = self._file.current()
        return ((AUTHORIZATION, found.header),) if found.of_member else ()

    @property
    def expires(self) -> float | None:
        """When it ends: Unix time; None when it does not say."""
        return self._file.current().expires


def metadata_of(grant: OwnGrant | None) -> tuple[tuple[str, str], ...]:
    """The metadata that shows a grant; empty for none."""
    return () if grant is None else grant.metadata


@dataclass(frozen=True, slots=True)
class _Shown:
    header: str
    of_member: bool
    expires: float | None


def _parsed(data: bytes) -> _Shown:
    token = data.strip()
    if len(token) > MAX_GRANT_BYTES:
        raise InvalidArgumentError(f"a grant has at most {MAX_GRANT_BYTES:,} bytes, not {len(token):,}")
    if not _JWT.fullmatch(token):
        raise InvalidArgumentError("there is no grant in it: a JWT is wanted, three parts with dots between")
    payload = token.split(b".")[1]
    try:
        claims = json.loads(base64.urlsafe_b64decode(payload + b"=" * (-len(payload) % 4)))
        subject, end = claims["sub"], claims.get("exp")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InvalidArgumentError("there is no grant in it: its claims are not JSON with a `sub`") from error
    expires = float(end) if isinstance(end, int | float) else None
    return _Shown(f"Bearer {token.decode()}", str(subject).startswith(MEMBER_SCHEME), expires)
