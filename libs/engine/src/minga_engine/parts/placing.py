"""Small contents, those of one chunk: many at once given their names.

They come complete or not at all, so they need no part: each is written to a file without a name (O_TMPFILE), its data
are synced, and only then it is linked to its name, which the kernel does in one step and never over another file. What
`kill -9` leaves is complete files, or nothing.
"""

import asyncio
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from minga_core.attributes import NO_ATTRIBUTES, FileAttributes
from minga_core.chunks import MIN_CHUNK_BYTES
from minga_core.errors import ChunkCorruptError
from minga_core.ids import ContentId, digest
from minga_core.manifest import Manifest
from minga_core.names import Name
from minga_core.records import RowKey
from minga_engine.parts.disk import DiskPool
from minga_engine.parts.files import Fingerprint, link_nameless, mode_of, set_modified
from minga_engine.parts.holes import write_at

MAX_SMALL_BYTES = MIN_CHUNK_BYTES
"""A content of at most this much is one chunk."""
FILES_A_JOB = 32
"""Files that one thread writes, syncs and names together: so many descriptors at once, and one sync of their folder."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SmallContent:
    """A complete content of at most one chunk. Made by `of`, which verifies it."""

    content_id: ContentId
    manifest: Manifest
    data: bytes

    @classmethod
    def of(cls, data: bytes, content_id: ContentId) -> "SmallContent":
        """The content that these bytes are. Raises ChunkCorruptError when they are another one, or too many."""
        if len(data) <= MAX_SMALL_BYTES:
            manifest = Manifest.from_digests(len(data), digest(data) if data else b"")
            if manifest.content_id == content_id:
                return cls(content_id, manifest, data)
        raise ChunkCorruptError(f"{len(data)} bytes are not the content {content_id.short}")


@dataclass(frozen=True, slots=True)
class SmallFile:
    """A small content and the name that it is to have."""

    name: Name
    content: SmallContent
    published_ns: int
    """When it was first shared under that name."""
    attributes: FileAttributes = NO_ATTRIBUTES
    tag: bytes = b""
    """The proof of published_ns."""

    @property
    def key(self) -> RowKey:
        """The row that it will have."""
        return RowKey(self.name, self.content.content_id)


async def place_all(
    files: Iterable[SmallFile],
    folder_of: Callable[[SmallFile], T],
    place: Callable[[T, Sequence[SmallFile]], list[Fingerprint | None]],
    pool: DiskPool,
) -> list[tuple[SmallFile, Fingerprint]]:
    """Run `place` in the pool with a few files of one folder at a time; the files that it gave a fingerprint."""
    folders: dict[T, list[SmallFile]] = {}
    for file in files:
        folders.setdefault(folder_of(file), []).append(file)
        queue = [(folder, some) for folder, of_it in folders.items() for some in _slices(of_it, FILES_A_JOB)]
    placed: list[tuple[SmallFile, Fingerprint]] = []

    async def work() -> None:
        while queue:
            folder, some = queue.pop()
            fingerprints = await pool.run(place, folder, some)
            placed.extend((file, found) for file, found in zip(some, fingerprints, strict=True) if found is not None)

    async with asyncio.TaskGroup() as group:
        for _ in range(min(len(queue), pool.threads)):
            group.create_task(work(), name="small-files")
    return placed


def write_all(folder: int, files: Sequence[tuple[str, SmallFile]]) -> list[Fingerprint | None]:
    """Write files into an open folder, each under a base name; their fingerprints. Blocking.

    Data and names are on the disk when this returns. None for one whose name is taken or cannot be linked. Raises
    OSError when the disk or the file system allows none of it.
    """
    descriptors: list[int] = []
    try:
        for _, file in files:
            mode = mode_of(file.attributes)
            descriptors.append(os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, mode, dir_fd=folder))
            write_at(descriptors[-1], file.content.data, 0)
            set_modified(descriptors[-1], file.attributes)
        for descriptor in descriptors:
            os.fsync(descriptor)
        names = (base for base, _ in files)
        fingerprints = [_link(descriptor, base, folder) for descriptor, base in zip(descriptors, names, strict=True)]
        os.fsync(folder)
        return fingerprints
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _link(descriptor: int, base: str, folder: int) -> Fingerprint | None:
    """Link a nameless file to its name; None when the name is taken or the link fails."""
    try:
        link_nameless(descriptor, base, folder)
    except OSError:
        return None
    return Fingerprint.of(os.fstat(descriptor))


def _slices(items: Sequence[T], length: int) -> Iterator[list[T]]:
    rest = iter(items)
    while some := list(islice(rest, length)):
        yield some
