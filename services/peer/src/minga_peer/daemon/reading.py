"""What readers on this machine are given: files of the shared folder, and contents while they arrive."""

from contextlib import aclosing
from datetime import timedelta

from minga_core.attributes import FileAttributes
from minga_core.clock import Clock
from minga_core.ids import ContentId
from minga_core.names import Name
from minga_core.records import FOUND, PUBLISH, FileRow
from minga_engine.transfer.download import DownloadRequest, OnProgress
from minga_engine.transfer.locating import Located
from minga_engine.transfer.stream import Fetch, Streams
from minga_peer.daemon.downloads import Downloads
from minga_peer.share.store import ContentStore


def fetch_by(downloads: Downloads) -> Fetch:
    """Starts or joins a daemon's downloads."""

    async def fetch(request: DownloadRequest, on_progress: OnProgress) -> None:
        async with aclosing(downloads.follow(request)) as steps:
            async for progress, _ in steps:
                on_progress(progress)

    return fetch


def make_streams(
    store: ContentStore, downloads: Downloads, clock: Clock, *, wait: timedelta | None, keep: bool
) -> Streams:
    """The streams of a daemon; see Streams."""
    return Streams(store, fetch_by(downloads), downloads.demands, clock, wait=wait, keep=keep)


def located_here(row: FileRow) -> Located:
    """A complete file of this peer's as what a stream is opened of, without asking the locator."""
    # What is read publishes nothing, even of a version that has no time yet.
    published_ns = row.published_ns if row.published_ns > PUBLISH else FOUND
    return Located(
        row.key.name,
        row.key.content_id,
        row.size_bytes,
        published_ns,
        [],
        FileAttributes(row.modified_ns, row.executable),
        row.tag,
    )


class LocalFiles:
    """The complete files of this peer. Implements `catalogue.Local`."""

    def __init__(self, store: ContentStore) -> None:
        self._store = store

    def named(self, name: Name) -> Located | None:
        """The file of that name."""
        return _located(self._store.find(name))

    def content(self, content_id: ContentId) -> Located | None:
        """Some file with that content."""
        file = self._store.inventory.file_with(content_id)
        return None if file is None else located_here(file.row)


def _located(row: FileRow | None) -> Located | None:
    return None if row is None else located_here(row)
