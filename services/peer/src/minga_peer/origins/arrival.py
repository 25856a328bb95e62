"""One file of an origin on its way here, for all its readers.

::

    looked for ─► begun: here, with peers, or coming from the origin ─► verified ─► whole: in place under its name
         └──────────┴──────────────────────────────────────────────────────┴─► failed: what came is dropped
"""

import asyncio
import logging
import secrets
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta

from minga_core.errors import ContentChangedError, MingaError, PeerUnavailableError
from minga_core.ids import DIGEST_BYTES, ContentId
from minga_core.names import Name
from minga_engine.progress import DownloadPhase, Progress
from minga_engine.transfer.download import DownloadRequest
from minga_engine.transfer.locating import Located
from minga_peer.origins.checking import sha256_of
from minga_peer.origins.following import SOURCE_WAIT, look_up
from minga_peer.origins.means import Means
from minga_peer.origins.origin_file import OriginFile
from minga_peer.origins.source import Source
from minga_peer.origins.transfer import Transfer
from minga_runtime.logs import log_event

log = logging.getLogger(__name__)

ANNOUNCE_WAIT = timedelta(seconds=5)
"""How long others are kept from fetching the same while the registry does not take the row."""


class Arrival:
    """A file on its way. Made and closed by `Origins`.

    found: as of `Origins.open`. peers: whether those that have it are asked first. on_end: called once nothing goes on
    any more.
    """

    def __init__(
        self,
        means: Means,
        file: OriginFile,
        name: Name,
        found: Located | None,
        *,
        peers: bool,
        on_end: Callable[["Arrival"], None],
    ) -> None:
        self.name = name
        self.users = 0
        self.unused: asyncio.TimerHandle | None = None
        """Ends it, since nobody uses it now."""
        self.transfer: Transfer | None = None
        """The fetching from the origin, where it comes to that."""
        self._means = means
        self._file = file
        self._looked_up = found
        self._peers = peers
        self._local = False
        self._progress = Progress(DownloadPhase.LOCATING, file.size_bytes or 0)
        loop = asyncio.get_running_loop()
        self._begun: asyncio.Future[Located] = loop.create_future()
        self._verified = asyncio.Event()
        self._whole: asyncio.Future[Located] = loop.create_future()
        self._task = asyncio.create_task(self._run(), name=f"origin-{name[-64:]}")
        self._on_end = on_end
        self._task.add_done_callback(self._ended)

    @property
    def source(self) -> Source:
        """Where it comes from, as it is now."""
        if self._local:
            return Source.LOCAL
        return Source.PEERS if self.transfer is None else self.transfer.incoming.source

    @property
    def is_verified(self) -> bool:
        """Whether all of it is here, and is what it should be."""
        return self._verifying.is_set()

    @property
    def _verifying(self) -> asyncio.Event:
        return self._verified if self.transfer is None else self.transfer.incoming.verified

    @property
    def settled(self) -> bool:
        """Whether it has failed, or is in place: who wants it from now on finds it there, or tries anew."""
        return self._whole.done()

    def progress(self) -> Progress:
        """How far it is."""
        if self.transfer is None or (part := self.transfer.incoming.part) is None:
            return self._progress
        return Progress(DownloadPhase.FETCHING, part.manifest.size_bytes, part.held_bytes)

    async def begun(self) -> Located:
        """What is read from now on, once its size is known. Raises as `whole`."""
        return await asyncio.shield(self._begun)

    async def whole(self) -> Located:
        """The file, once it is verified and in place. Raises what ended it: PermissionDeniedError, UnavailableError,
        FileNotFoundInDirectoryError, NoSourcesError, ContentChangedError, NoSpaceError, StorageError."""
        return await asyncio.shield(self._whole)

    async def until_verified(self) -> None:
        """Return when all of it is here and is what it should be. Raises as `whole`."""
        event = self._verifying
        if event.is_set():
            return
        verified = asyncio.create_task(event.wait(), name="origin-verified")
        try:
            await asyncio.wait((verified, self._whole), return_when=asyncio.FIRST_COMPLETED)
        finally:
            verified.cancel()
        if not event.is_set():
            await self.whole()

    def end(self) -> None:
        """Have it end; what is not verified is dropped. Idempotent."""
        self._task.cancel()

    async def aclose(self) -> None:
        """As `end`, and wait for it."""
        self.end()
        await asyncio.gather(self._task, return_exceptions=True)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        error = PeerUnavailableError("the peer is stopping") if task.cancelled() else task.exception()
        if error is None:
            self._means.metrics.came(self.source, self._whole.result().size_bytes)
        elif not task.cancelled():
            self._means.metrics.failed()
        for future in (self._begun, self._whole):
            if not future.done():
                future.set_exception(error or PeerUnavailableError("it has ended"))
                # Nobody may be waiting for it.
                future.exception()
        self._on_end(self)

    async def _run(self) -> None:
        try:
            if (found := await self._found()) is not None:
                await self._copied(found)
            else:
                await self._transferred()
        except MingaError as error:
            log_event(log, logging.WARNING, "origin_file_failed", name=self.name, source=self.source, error=error)
            raise

    async def _found(self) -> Located | None:
        """The file here, or with peers."""
        if (here := self._means.local.named(self.name)) is not None:
            self._local = True
            return here
        if not self._peers:
            return None
        found = self._looked_up
        # What was here a moment ago has no sources, and is not here any more.
        return found if found is not None and found.sources else await look_up(self._means, self.name)

    async def _copied(self, found: Located) -> None:
        """Fetch it from those that have it, if it is not here."""
        means, expected = self._means, self._file.digest
        self._begun.set_result(found)
        checking: asyncio.Task[str] | None = None
        if expected and not means.checked.is_right(self.name, found.content_id):
            work = sha256_of(means.store, found.content_id, found.size_bytes, means.pool)
            checking = asyncio.create_task(work, name=f"sha256-{found.content_id.short}")
        try:
            if not self._local:
                await means.cache.make_room(found.size_bytes)
                await means.download(DownloadRequest.of(found, overwrite=True, source_wait=SOURCE_WAIT), self._note)
            if checking is not None and (digest := await checking) != expected:
                means.checked.note_wrong(self.name, found.content_id)
                with suppress(MingaError):
                    await means.store.remove(self.name)
                raise ContentChangedError(f"what peers have for {expected} is {digest}")
        finally:
            if checking is not None:
                checking.cancel()
                await asyncio.gather(checking, return_exceptions=True)
        if expected:
            means.checked.note_right(self.name, found.content_id)
        self._verified.set()
        self._whole.set_result(found)

    async def _transferred(self) -> None:
        """Have it fetched from its origin, by this peer or another one."""
        means, content_id = self._means, ContentId(secrets.token_bytes(DIGEST_BYTES))
        transfer = self.transfer = Transfer(
            means, self._file, self.name, content_id, self._begun.set_result, peers=self._peers
        )
        try:
            await transfer.run()
            placed = means.local.named(self.name)
            if placed is None:
                raise ContentChangedError(f"{self.name} was removed just now")
            self._whole.set_result(placed)
            fields = {"name": self.name, "content_id": placed.content_id, "source": self.source}
            log_event(log, logging.INFO, "origin_file_fetched", **fields)
            # Until they find it others follow this transfer.
            with suppress(MingaError):
                await means.announced(self.name, ANNOUNCE_WAIT)
        finally:
            await transfer.claim.release()

    def _note(self, progress: Progress) -> None:
        self._progress = progress
