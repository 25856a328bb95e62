"""Manifests: the size of a content and the digest of every chunk, in one canonical encoding.

Encoding, version 1. Integers are unsigned and big-endian.

======  =====  ==========================================================
offset  bytes  meaning
======  =====  ==========================================================
0       8      the ASCII letters ``MINGAMF1``
8       8      size of the content in bytes
16      4      chunk size in bytes; must be `chunk_size_for(size)`
20      32·n   BLAKE3 digest of each of the n = ceil(size/chunk size) chunks
======  =====  ==========================================================

The content id is BLAKE3 of these bytes. Nothing follows them: a content has exactly one encoding. Test vectors
are in `docs/manifest.md`.
"""

import struct
from dataclasses import dataclass

from minga_core.chunks import Geometry
from minga_core.errors import InvalidManifestError, MingaError
from minga_core.ids import DIGEST_BYTES, ContentId, digest

MAGIC = b"MINGAMF1"
_HEADER = struct.Struct(">8sQI")
HEADER_BYTES = _HEADER.size
MAX_MANIFEST_BYTES = HEADER_BYTES + DIGEST_BYTES * (1 << 20)


@dataclass(frozen=True, slots=True)
class Manifest:
    """The size and chunk digests of a content. Made by `from_digests` and `decode`, which check them."""

    geometry: Geometry
    digests: bytes
    """The chunks' digests, 32 bytes each, one after the other."""

    @classmethod
    def from_digests(cls, size_bytes: int, digests: bytes) -> "Manifest":
        """The manifest of a content of that size. Raises InvalidManifestError when the number of digests is wrong."""
        geometry = Geometry(size_bytes)
        if len(digests) != geometry.chunk_count * DIGEST_BYTES:
            raise InvalidManifestError(
                f"a content of {size_bytes:,} bytes has {geometry.chunk_count} chunks, "
                f"but there are {len(digests)} bytes of digests"
            )
        return cls(geometry, digests)

    @classmethod
    def decode(cls, data: bytes, *, expected: ContentId | None = None) -> "Manifest":
        """The manifest that `data` encodes.

        Raises InvalidManifestError when `data` is not the one canonical encoding of a manifest, or does not have the
        `expected` content id.
        """
        if expected is not None and digest(data) != expected.raw:
            raise InvalidManifestError(f"the manifest does not match its content id {expected.short}")
        if len(data) < HEADER_BYTES:
            raise InvalidManifestError(f"a manifest has at least {HEADER_BYTES} bytes, not {len(data)}")
        magic, size_bytes, chunk_size_bytes = _HEADER.unpack_from(data)
        if magic != MAGIC:
            raise InvalidManifestError("these bytes are not a manifest of version 1")
        try:
            manifest = cls.from_digests(size_bytes, data[HEADER_BYTES:])
        except MingaError as error:
            raise InvalidManifestError(str(error)) from error
        if manifest.geometry.chunk_size_bytes != chunk_size_bytes:
            raise InvalidManifestError(f"a content of {size_bytes:,} bytes has no chunks of {chunk_size_bytes:,} bytes")
        return manifest

    def encode(self) -> bytes:
        """The canonical encoding."""
        return _HEADER.pack(MAGIC, self.geometry.size_bytes, self.geometry.chunk_size_bytes) + self.digests

    @property
    def content_id(self) -> ContentId:
        """BLAKE3 of the encoding; computed at each call."""
        return ContentId(digest(self.encode()))

    @property
    def size_bytes(self) -> int:
        """Size of the content."""
        return self.geometry.size_bytes

    def chunk_digest(self, index: int) -> bytes:
        """The digest of chunk `index`, 32 raw bytes. Raises InvalidArgumentError past the end."""
        self.geometry.offset(index)
        return self.digests[index * DIGEST_BYTES : (index + 1) * DIGEST_BYTES]

    def matches(self, index: int, data: bytes | bytearray | memoryview) -> bool:
        """Whether `data` is chunk `index`: right size and right digest."""
        return len(data) == self.geometry.length(index) and digest(data) == self.chunk_digest(index)
