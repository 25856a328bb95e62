"""Contents that can be checked without being kept: bytes are a function of the run's seed and a label."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from random import Random

from blake3 import blake3

from minga_core.chunks import Geometry
from minga_core.ids import ContentId
from minga_core.manifest import Manifest

_SIZES = ((0.35, 1, 4 * 1024), (0.35, 4 * 1024, 256 * 1024), (0.22, 256 * 1024, 2 << 20), (0.08, 2 << 20, 12 << 20))
"""Share of the files, from, to: mostly small ones, some of many chunks."""
_READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Content:
    """One content that was ever shared."""

    label: str
    size_bytes: int
    digest: bytes
    """BLAKE3 of the bytes as they are."""
    content_id: ContentId

    def data(self) -> bytes:
        """The bytes."""
        return _bytes_of(self.label, self.size_bytes)


def make_content(label: str, size_bytes: int) -> Content:
    """The content with that label. Takes about a millisecond a MiB."""
    data = _bytes_of(label, size_bytes)
    geometry = Geometry(size_bytes)
    view = memoryview(data)
    offsets = ((geometry.offset(index), geometry.length(index)) for index in range(geometry.chunk_count))
    digests = b"".join(blake3(view[offset : offset + length]).digest() for offset, length in offsets)
    return Content(label, size_bytes, blake3(data).digest(), Manifest.from_digests(size_bytes, digests).content_id)


def some_size(rng: Random) -> int:
    """A size, as files are."""
    drawn = rng.random()
    for share, least, most in _SIZES:
        if drawn < share:
            return rng.randint(least, most)
        drawn -= share
    return 0


def digest_of(path: Path) -> bytes | None:
    """BLAKE3 of a file; None when it is not there."""
    try:
        stat = path.stat()
        return _digest(path, stat.st_ino, stat.st_mtime_ns, stat.st_size)
    except FileNotFoundError:
        return None


@lru_cache(maxsize=100_000)
def _digest(path: Path, inode: int, modified_ns: int, size_bytes: int) -> bytes:
    hasher = blake3()
    with path.open("rb") as file:
        while block := file.read(_READ_BYTES):
            hasher.update(block)
    return hasher.digest()


def _bytes_of(label: str, size_bytes: int) -> bytes:
    return blake3(label.encode()).digest(length=size_bytes)
