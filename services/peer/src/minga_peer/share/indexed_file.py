"""A file as the index keeps it."""

from dataclasses import dataclass, field

from minga_core.ids import ContentId
from minga_core.names import Name
from minga_engine.parts.files import Fingerprint


@dataclass(frozen=True, slots=True)
class IndexedFile:
    """A file whose digests are known, as long as it has this fingerprint."""

    name: Name
    path: str
    fingerprint: Fingerprint
    content_id: ContentId
    published_ns: int = field(compare=False)
    """See FileRow. The file stays the same one when it is published."""
    tag: bytes = field(default=b"", compare=False)
    """See FileRow."""
