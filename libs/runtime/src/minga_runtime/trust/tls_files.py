"""The paths of a member's certificate, key and CA, as settings name them. Nothing of TLS is imported for them."""

from dataclasses import dataclass
from pathlib import Path

Fingerprint = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Paths of PEM files."""

    certificate: Path
    key: Path
    ca: Path
    revoked: Path | None = None
    """Not PEM: who is no member any more, one a line."""

    def fingerprint(self) -> Fingerprint:
        """What changes when a file does. Raises OSError."""
        found = (path.stat() for path in (self.certificate, self.key, self.ca))
        return tuple((each.st_mtime_ns, each.st_ino, each.st_size) for each in found)
