"""What readers on this machine are given: files of the shared folder, and contents while they arrive."""

from minga_core.attributes import FileAttributes
from minga_core.records import FileRow
from minga_engine.transfer.locating import Located
from minga_engine.transfer.stream import Streams
from minga_peer.share.store import ContentStore


def make_streams(store: ContentStore) -> Streams:
    """The streams of a daemon."""
    return Streams(store, store.folder.disk)


def located_here(row: FileRow) -> Located:
    """A complete file of this peer's as what a stream is opened of, without asking the locator."""
    return Located(
        row.key.name,
        row.key.content_id,
        row.size_bytes,
        row.published_ns,
        [],
        FileAttributes(row.modified_ns, row.executable),
        row.tag,
    )
