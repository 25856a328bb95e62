"""What readers on this machine are given: files of the shared folder, and contents while they arrive."""

from contextlib import aclosing
from datetime import timedelta

from minga_core.attributes import FileAttributes
from minga_core.clock import Clock
from minga_core.records import FOUND, PUBLISH, FileRow
from minga_engine.transfer.download import DownloadRequest, OnProgress
from minga_engine.transfer.locating import Located
from minga_engine.transfer.stream import Streams
from minga_peer.daemon.downloads import Downloads
from minga_peer.share.store import ContentStore


def make_streams(
    store: ContentStore, downloads: Downloads, clock: Clock, *, wait: timedelta | None, keep: bool
) -> Streams:
    """The streams of a daemon; see Streams."""

    async def fetch(request: DownloadRequest, on_progress: OnProgress) -> None:
        async with aclosing(downloads.follow(request)) as steps:
            async for progress, _ in steps:
                on_progress(progress)

    return Streams(store, fetch, downloads.demands, clock, wait=wait, keep=keep)


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
