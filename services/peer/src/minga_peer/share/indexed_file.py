"""A file as the index keeps it."""

import struct

from minga_core.ids import ContentId
from minga_core.names import Name
from minga_core.records import FileRow, HoldingState, Published, RowKey
from minga_engine.parts.files import FINGERPRINT_BYTES, Fingerprint

_TIME_BYTES = 8
_TAG_AT = FINGERPRINT_BYTES + _TIME_BYTES
_SIZE = struct.Struct(">q")
_OF_ROW = struct.Struct(">qq24x?q")
"""Of a fingerprint what a row has, and the time of publication behind it."""


class IndexedFile:
    """A file whose digests are known, as long as it has this fingerprint. Immutable.

    A peer keeps one for each file that it shares, and nothing else of it but its place in two dictionaries: all that
    can be made of it is made when it is wanted.
    """

    __slots__ = ("_packed", "content_id", "name", "path")

    name: Name
    path: str
    """Relative, as the disk spells it."""
    content_id: ContentId
    _packed: bytes
    """Fingerprint, time of publication, tag."""

    def __init__(
        self,
        name: Name,
        path: str,
        fingerprint: Fingerprint,
        content_id: ContentId,
        published_ns: int,
        tag: bytes = b"",
    ) -> None:
        """published_ns, tag: see FileRow."""
        self.name = name
        # Nearly always the same: kept once.
        self.path = name if path == name else path
        self.content_id = content_id
        self._packed = b"".join((fingerprint, published_ns.to_bytes(_TIME_BYTES, "big", signed=True), tag))

    @property
    def fingerprint(self) -> Fingerprint:
        """Of the file as it was hashed."""
        return Fingerprint.unpack(self._packed[:FINGERPRINT_BYTES])

    @property
    def size_bytes(self) -> int:
        """Of the file as it was hashed."""
        size_bytes: int = _SIZE.unpack_from(self._packed)[0]
        return size_bytes

    @property
    def published_ns(self) -> int:
        """See FileRow."""
        return int.from_bytes(self._packed[FINGERPRINT_BYTES:_TAG_AT], "big", signed=True)

    @property
    def tag(self) -> bytes:
        """See FileRow."""
        return self._packed[_TAG_AT:]

    @property
    def key(self) -> RowKey:
        """Of its row."""
        return RowKey(self.name, self.content_id)

    @property
    def row(self) -> FileRow:
        """What is announced of it."""
        size_bytes, modified_ns, executable, published_ns = _OF_ROW.unpack_from(self._packed)
        key, tag = RowKey(self.name, self.content_id), self._packed[_TAG_AT:]
        return FileRow(key, size_bytes, modified_ns, published_ns, HoldingState.COMPLETE, executable, tag)

    def published(self, published: Published) -> "IndexedFile":
        """The same file with another time of publication."""
        return IndexedFile(self.name, self.path, self.fingerprint, self.content_id, *published)

    def changed(self, fingerprint: Fingerprint) -> "IndexedFile":
        """The file with the same content after its inode has changed."""
        return IndexedFile(self.name, self.path, fingerprint, self.content_id, self.published_ns, self.tag)

    def __eq__(self, other: object) -> bool:
        """The file stays the same one when it is published."""
        if not isinstance(other, IndexedFile):
            return NotImplemented
        return (self.name, self.path, self.content_id, self.fingerprint) == (
            other.name,
            other.path,
            other.content_id,
            other.fingerprint,
        )

    def __hash__(self) -> int:
        return hash((self.name, self.content_id))

    def __repr__(self) -> str:
        return f"IndexedFile({self.name!r}, {self.fingerprint.numbers}, {self.content_id}, {self.published_ns})"
