"""What became of a file that was to be hashed."""

import errno
from dataclasses import dataclass

from minga_core.errors import ContentChangedError, InvalidArgumentError
from minga_core.ids import ContentId
from minga_core.manifest import Manifest
from minga_engine.parts.files import Fingerprint
from minga_peer.share.root import FoundFile, shown


@dataclass(frozen=True, slots=True)
class Hashed:
    """A file's outcome: digests, or a problem, or neither when it changed or is gone and must be looked at again."""

    found: FoundFile
    manifest: Manifest | None = None
    content_id: ContentId | None = None
    fingerprint: Fingerprint | None = None
    problem: str = ""
    recalled: bool = False
    """The digests were known, and the file was not read."""

    @classmethod
    def of(cls, found: FoundFile, manifest: Manifest, fingerprint: Fingerprint) -> "Hashed":
        """A file that was hashed. Computes the content id."""
        return cls(found, manifest, manifest.content_id, fingerprint)

    @classmethod
    def failed(cls, found: FoundFile, error: Exception) -> "Hashed":
        """The outcome that an error of opening or hashing means."""
        match error:
            case ContentChangedError():
                return cls(found)
            case InvalidArgumentError():
                return cls(found, problem=f"{shown(found.path)} cannot be shared: {error}")
            case OSError(errno=errno.ENOENT | errno.ENOTDIR | errno.ELOOP):
                return cls(found)
            case OSError():
                return cls(found, problem=f"{shown(found.path)} cannot be read: {(error.strerror or '').lower()}")
        raise error
