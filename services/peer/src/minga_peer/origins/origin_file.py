"""What is fetched from an origin, and the name that it has for all machines."""

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from minga_core.chunks import MAX_CONTENT_BYTES
from minga_core.errors import InvalidArgumentError
from minga_core.ids import digest
from minga_core.names import ORIGINS_PREFIX, Name, parse_name
from minga_peer.origins.allowed import parse_url

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_OTHER = re.compile(r"[^A-Za-z0-9._+-]+")
MAX_LAST_PART = 128
PRIVATE_PREFIX = f"{ORIGINS_PREFIX}private/"
_NO_CREDENTIALS = frozenset(("accept", "accept-encoding", "via"))
"""Headers that let nobody have anything: all others may."""


@dataclass(frozen=True, slots=True)
class OriginFile:
    """A file of an origin. Raises InvalidArgumentError for what is none."""

    url: str
    """May have a signature in its query, which is no part of the file's name."""
    digest: str = ""
    """`sha256:` and 64 hex digits; empty when it is not known."""
    size_bytes: int | None = None
    """None: as the origin says."""
    validator: str = ""
    """A strong ETag, or the date of the last modification as HTTP writes it. Empty: as the origin says."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Credentials: for this origin alone. Never stored, never sent to peers, dropped at a redirect elsewhere. With an
    `Accept-Encoding` what comes is taken as it is: stores keep an encoding with a file."""
    private: bool | None = None
    """Whether the origin may refuse it to others: only those get it then whom the origin has just answered. None: when
    `headers` may have credentials, or the query of a URL: one with a signature, and any where the file has a digest."""

    renew: Callable[[], Awaitable[Mapping[str, str]]] | None = field(default=None, compare=False, repr=False)
    """Other headers, for when the origin takes these no more: tokens end, and a file may take longer. None: there are
    no others. Raises MingaError."""

    def __post_init__(self) -> None:
        parse_url(self.url)
        if self.digest and not _DIGEST.fullmatch(self.digest):
            raise InvalidArgumentError(f"{self.digest[:80]!r} is not a digest: sha256: and 64 hex digits")
        if self.size_bytes is not None and not 0 <= self.size_bytes <= MAX_CONTENT_BYTES:
            raise InvalidArgumentError(f"a size is 0 to {MAX_CONTENT_BYTES:,} bytes")

    @property
    def is_private(self) -> bool:
        """Whether only those get it whom its origin lets have it."""
        if self.private is not None:
            return self.private
        # Who has a signed URL may have the file; who has its digest alone may not.
        is_signed = parse_url(self.url).is_signed or (bool(self.digest) and "?" in self.url)
        return is_signed or any(name.lower() not in _NO_CREDENTIALS for name in self.headers)


def name_of(file: OriginFile) -> Name:
    """The name of a file that something identifies: it stands for one content for ever."""
    if file.digest and not file.is_private:
        return name_of_digest(file.digest)
    url = parse_url(file.url)
    # A date alone may stand for two contents of one second.
    size = "" if file.validator.startswith('"') else f"\n{file.size_bytes}"
    key = digest(f"{url.unsigned}\n{file.digest or file.validator + size}".encode()).hex()
    if file.is_private:
        # Of the URL, whatever its digest: that an origin answers for one URL says nothing of what others have.
        return parse_name(f"{PRIVATE_PREFIX}{key}")
    last = _OTHER.sub("_", url.path.rpartition("/")[2])[-MAX_LAST_PART:].strip(".") or "file"
    return parse_name(f"{ORIGINS_PREFIX}url/{key}/{last}")


def name_of_digest(text: str) -> Name:
    """The name of the content with that digest. Raises InvalidArgumentError."""
    if not _DIGEST.fullmatch(text):
        raise InvalidArgumentError(f"{text[:80]!r} is not a digest: sha256: and 64 hex digits")
    return parse_name(f"{ORIGINS_PREFIX}sha256/{text.removeprefix('sha256:')}")
