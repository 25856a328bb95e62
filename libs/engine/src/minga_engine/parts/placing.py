"""Small contents, those of one chunk: many at once given their names.

They come complete or not at all, so they need no part: each is written to a file without a name (O_TMPFILE), the data
of all of them are synced, and only then each is linked to its name, which the kernel does in one step and never over
another file. What `kill -9` leaves is complete files, or nothing. Two syncs of the file system serve all files of a
call: a sync of each file makes a disk flush its cache for each (ADR 49).
"""

import os
import resource
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from typing import NamedTuple, TypeVar

from minga_core.attributes import NO_ATTRIBUTES, FileAttributes
from minga_core.chunks import MIN_CHUNK_BYTES
from minga_core.errors import ChunkCorruptError
from minga_core.ids import ContentId, digest
from minga_core.manifest import Manifest
from minga_core.names import Name
from minga_core.records import RowKey
from minga_engine.parts.files import Fingerprint, link_nameless, mode_of, sync_file_systems
from minga_engine.parts.holes import write_at

MAX_SMALL_BYTES = MIN_CHUNK_BYTES
"""A content of at most this much is one chunk."""

MAX_OPEN = 4_096
OPEN_SHARE = 8
"""A call has at most MAX_OPEN nameless files open, and one in so many of the descriptors that the process may have."""

T = TypeVar("T")


# NamedTuples: they come by the ten thousand, and a frozen dataclass takes three times as long to make.


class SmallContent(NamedTuple):
    """A complete content of at most one chunk. Made by `of`, which verifies it."""

    content_id: ContentId
    manifest: Manifest
    data: bytes | memoryview

    @classmethod
    def of(cls, data: bytes | memoryview, content_id: ContentId) -> "SmallContent":
        """The content that these bytes are. Raises ChunkCorruptError when they are another one, or too many."""
        if len(data) <= MAX_SMALL_BYTES:
            manifest = Manifest.from_digests(len(data), digest(data) if data else b"")
            if manifest.content_id == content_id:
                return cls(content_id, manifest, data)
        raise ChunkCorruptError(f"{len(data)} bytes are not the content {content_id.short}")


class SmallFile(NamedTuple):
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


def place_all(
    files: Sequence[tuple[T, str, SmallFile]],
    open_folder: Callable[[T], AbstractContextManager[int]],
    nameless_in: int | None = None,
) -> list[Fingerprint | None]:
    """Put files in place, each in a folder under a base name; their fingerprints. Blocking.

    nameless_in: an open folder of the same file system, which they are in as long as they have no name; None: that
    which they get their names in. Who watches it gets three events of each file.

    Data and names are on the disk when this returns. None for one whose folder cannot be opened, that the disk or its
    file system does not take, or whose name is taken. Raises OSError when a disk does not write what it has taken: none
    of them counts as there then.
    """
    step = _most_open()
    found: list[Fingerprint | None] = []
    for start in range(0, len(files), step):
        found += _placed(files[start : start + step], open_folder, nameless_in)
    return found


def _most_open() -> int:
    """How many files, and their folders, one call has open."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_OPEN if limit == resource.RLIM_INFINITY else max(1, min(MAX_OPEN, limit // OPEN_SHARE))


def _placed(
    files: Sequence[tuple[T, str, SmallFile]],
    open_folder: Callable[[T], AbstractContextManager[int]],
    nameless_in: int | None,
) -> list[Fingerprint | None]:
    """As `place_all`, of as many files as may be open at once."""
    descriptors: list[int | None] = []
    with ExitStack() as stack:
        stack.callback(_close_all, descriptors)
        folders = {folder: _opened(open_folder(folder), stack) for folder in {folder for folder, _, _ in files}}
        now_ns = time.time_ns()
        for folder, _, file in files:
            into = folders[folder]
            written_in = into if nameless_in is None or into is None else nameless_in
            descriptors.append(_written(written_in, file, now_ns))
        written = [
            (folders[folder], base, descriptor)
            for (folder, base, _), descriptor in zip(files, descriptors, strict=True)
        ]
        used = {folder for folder, _, descriptor in written if folder is not None and descriptor is not None}
        sync_file_systems(used)
        found = [_linked(descriptor, base, folder) for folder, base, descriptor in written]
        sync_file_systems(used)
        return found


def _close_all(descriptors: Iterable[int | None]) -> None:
    for descriptor in descriptors:
        if descriptor is not None:
            os.close(descriptor)


def _opened(folder: AbstractContextManager[int], stack: ExitStack) -> int | None:
    """A folder's descriptor until the end of the stack; None when it cannot be opened."""
    try:
        return stack.enter_context(folder)
    except OSError:
        return None


def _written(folder: int | None, file: SmallFile, now_ns: int) -> int | None:
    """Write a nameless file; its descriptor, or None when that is not possible."""
    if folder is None:
        return None
    try:
        descriptor = os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, mode_of(file.attributes), dir_fd=folder)
    except OSError:
        return None
    try:
        write_at(descriptor, file.content.data, 0)
    except OSError:
        os.close(descriptor)
        return None
    if file.attributes.modified_ns is not None:
        with suppress(OSError):
            os.utime(descriptor, ns=(now_ns, file.attributes.modified_ns))
    return descriptor


def _linked(descriptor: int | None, base: str, folder: int | None) -> Fingerprint | None:
    """Link a nameless file to its name; None when the name is taken or the link fails."""
    if descriptor is None or folder is None:
        return None
    try:
        link_nameless(descriptor, base, folder)
    except OSError:
        return None
    return Fingerprint.of(os.fstat(descriptor))
