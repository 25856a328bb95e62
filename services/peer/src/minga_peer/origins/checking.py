"""SHA-256 of a content, made in order while its chunks come."""

import hashlib
from collections import OrderedDict

from minga_core.chunks import Geometry
from minga_core.errors import ContentChangedError, ContentNotHeldError, StorageError
from minga_core.ids import ContentId
from minga_core.names import Name
from minga_engine.parts.disk import DiskPool, storage_errors
from minga_engine.parts.files import OpenChunk
from minga_engine.transfer.stream import Contents

PIECE_BYTES = 1024 * 1024
MAX_CHECKED = 100_000
"""Contents that are remembered; one that is forgotten is verified once more."""


async def sha256_of(contents: Contents, content_id: ContentId, size_bytes: int, pool: DiskPool) -> str:
    """`sha256:` and its digits, once all of the content is here. It asks for nothing: cancel it when no more comes.

    Raises StorageError when a chunk cannot be read.
    """
    made, geometry = hashlib.sha256(), Geometry(size_bytes)
    for index in range(geometry.chunk_count):
        await _held(contents, content_id, index)
        try:
            async with contents.open_chunk(content_id, index) as chunk:
                await pool.run(_update, made, chunk)
        except (ContentNotHeldError, ContentChangedError) as error:
            # It has gone bad since it was written: what was read of it is in the digest by now.
            raise StorageError(f"{content_id.short} changed on this disk while it was verified") from error
    return f"sha256:{made.hexdigest()}"


async def _held(contents: Contents, content_id: ContentId, index: int) -> None:
    with contents.following(content_id) as changed:
        while (held := contents.held(content_id)) is None or index not in held:
            await changed.wait()
            changed.clear()


def _update(made: "hashlib._Hash", chunk: OpenChunk) -> None:
    with storage_errors("cannot read what is verified"):
        for start in range(0, chunk.size_bytes, PIECE_BYTES):
            made.update(chunk.read(start, PIECE_BYTES))


class Checked:
    """Which contents have, and which have not, the digest that their name says. What was not verified is not in it."""

    def __init__(self) -> None:
        self._right: OrderedDict[Name, ContentId] = OrderedDict()
        self._banned: OrderedDict[tuple[Name, str], None] = OrderedDict()
        self._wrong: OrderedDict[tuple[Name, ContentId], None] = OrderedDict()

    def is_right(self, name: Name, content_id: ContentId) -> bool:
        """Whether that content was verified here."""
        return self._right.get(name) == content_id

    def is_wrong(self, name: Name, content_id: ContentId) -> bool:
        """Whether that content was found to have another digest."""
        return (name, content_id) in self._wrong

    def is_banned(self, name: Name, peer_id: str) -> bool:
        """Whether that peer has named digests of a wrong file."""
        return (name, peer_id) in self._banned

    def ban(self, name: Name, peer_id: str) -> None:
        """Follow that peer no more for that file."""
        self._banned[name, peer_id] = None
        if len(self._banned) > MAX_CHECKED:
            self._banned.popitem(last=False)

    def note_right(self, name: Name, content_id: ContentId) -> None:
        """Note that its digest holds."""
        self._right[name] = content_id
        if len(self._right) > MAX_CHECKED:
            self._right.popitem(last=False)

    def note_wrong(self, name: Name, content_id: ContentId) -> None:
        """Note that its digest does not hold."""
        self._wrong[name, content_id] = None
        if len(self._wrong) > MAX_CHECKED:
            self._wrong.popitem(last=False)
