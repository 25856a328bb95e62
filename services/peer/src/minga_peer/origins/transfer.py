"""One file that is fetched from its origin by one peer for all, while it comes.

The peer that has the claim fetches. Its chunks get their digests as they come, and the others follow these; what they
hold they serve to each other as in any swarm, under the transfer's id. Each of them verifies the whole digest itself. A
fetcher that is lost is replaced by a follower, which goes on with what it lacks.
"""

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, Awaitable, Callable

from minga_core.chunks import ChunkSet
from minga_core.errors import (
    BusyError,
    ContentChangedError,
    ContentNotHeldError,
    PeerUnavailableError,
    UnavailableError,
)
from minga_core.ids import DIGEST_BYTES, ContentId
from minga_core.names import Name
from minga_core.records import Fetcher
from minga_engine.parts.provisional import ProvisionalPart
from minga_engine.transfer.locating import Located
from minga_engine.wire.digests import MAX_DIGESTS_BYTES, DigestStep
from minga_peer.origins._metrics import Stalled
from minga_peer.origins.claims import Claim
from minga_peer.origins.fetching import Fetching
from minga_peer.origins.following import FetcherLostError, fetch_from_holders, follow
from minga_peer.origins.incoming import Incoming, end
from minga_peer.origins.means import Means
from minga_peer.origins.origin_file import OriginFile
from minga_runtime.logs import log_event

log = logging.getLogger(__name__)

ALIVE_SECONDS = 1.0
"""A fetcher that has nothing new says so that often."""
MAX_FETCHERS = 16
"""Times that a fetcher is lost, this peer included, before a transfer is given up."""
BUSY_SECONDS = 2.0
"""How often, about, a fetcher with too many followers is asked again: the registry is, too."""
MAX_BUSY = 300
"""Times that it is asked: ten minutes."""
TAKEOVER_SECONDS = 0.5
"""Who lacks all of what was known waits so long before it takes over; others less, in proportion."""


class Transfer:
    """A file on its way from its origin. on_begun: called once, when its size is known, with what is read.

    peers: whether those that have it by now are asked.
    """

    def __init__(
        self,
        means: Means,
        file: OriginFile,
        name: Name,
        content_id: ContentId,
        on_begun: Callable[[Located], None],
        *,
        peers: bool,
    ) -> None:
        self.claim = Claim(means.registry, name, means.http_port)
        self.incoming = Incoming(means, file, name, content_id, on_begun)
        self._means = means
        self._name = name
        self._peers = peers
        self._fetching = Fetching(means, self.incoming)

    async def run(self) -> None:
        """Return when the file is in place. Raises what keeps it from getting there; then nothing is left of it.

        The claim is not released: others shall find the file first.
        """
        try:
            await self._arrive()
            await self.incoming.put_in_place()
        except BaseException as error:
            self.incoming.fail(error)
            raise
        finally:
            await self.incoming.aclose()

    async def _arrive(self) -> None:
        """Return when all chunks are here."""
        dead = doubted = b""
        lost_count = busy_count = 0
        while lost_count < MAX_FETCHERS:
            fetcher = await self._claim(dead)
            if self._may_be_held(dead) and await fetch_from_holders(self._means, self.incoming):
                return
            if fetcher is None:
                if await self._fetch():
                    return
                lost_count += 1
                continue
            try:
                await follow(self._means, self.incoming, fetcher)
                return
            except BusyError as error:
                # It lives, and has too many followers: one of them may end, or the fetch.
                dead, busy_count = b"", busy_count + 1
                if busy_count == MAX_BUSY:
                    raise UnavailableError(f"{self._name}: {fetcher.peer_id} fetches it, and has no room") from error
                await asyncio.sleep(max(BUSY_SECONDS, error.retry_after.total_seconds()) * _jitter(0.5))
                continue
            except FetcherLostError as error:
                fields = {"name": self._name, "fetcher": fetcher.peer_id, "error": error}
                log_event(log, logging.INFO, "origin_fetcher_lost", **fields)
                # One that may live keeps its claim, if it has it, and is followed once more.
                sure = error.sure or doubted == fetcher.transfer_id
            lost_count += 1
            doubted, dead = fetcher.transfer_id, fetcher.transfer_id if sure else b""
            self._means.metrics.stalled(Stalled.FETCHER)
            await asyncio.sleep(self.incoming.lacking() * TAKEOVER_SECONDS * _jitter(0.1))
        raise UnavailableError(f"{self._name}: {MAX_FETCHERS} peers have begun to fetch it, and none has ended")

    def _may_be_held(self, dead: bytes) -> bool:
        """Whether some peer may have all of it by now, although none had it before. dead: the transfer that was lost,
        and may be replaced by this peer's; nobody has more of it than its digests."""
        part = self.incoming.part
        unfinished = bool(dead) and part is not None and not part.known.complete
        return self._peers and not unfinished and bool(dead or self.claim.transfer_id)

    async def _claim(self, dead: bytes) -> Fetcher | None:
        """Who fetches; None when this peer is to. One whose digests were wrong before is not followed."""
        fetcher = await self.claim.fetcher(dead)
        if self.claim.transfer_id:
            # Those that follow it ask for chunks by that id, wherever this peer has them from.
            self.incoming.known_as(self.claim.transfer_id)
        if fetcher is not None and self._means.checked.is_banned(self._name, fetcher.peer_id):
            fetcher = None
        # Before it has an answer of the origin: others follow it from now on.
        self.incoming.fetches(wanted=fetcher is None)
        return fetcher

    async def _fetch(self) -> bool:
        """Fetch what is missing from the origin: whether all came. Otherwise another peer has the claim by now."""
        fetching = asyncio.create_task(self._fetching.run(), name=f"origin-fetch-{self.incoming.content_id.short}")
        lost = asyncio.create_task(self.claim.lost.wait(), name="claim-lost")
        try:
            await asyncio.wait((fetching, lost), return_when=asyncio.FIRST_COMPLETED)
            if not fetching.done():
                return False
            await fetching
            return True
        finally:
            await end(fetching)
            await end(lost)

    # For those that follow.

    async def digests(self, transfer_id: bytes) -> AsyncGenerator[DigestStep, None]:
        """What becomes known of a file that this peer fetches: see the contract's FollowDigests.

        Raises ContentNotHeldError when it does not, or not any more, PeerUnavailableError when it cannot,
        ContentChangedError when the file is not what it should be.
        """
        sent: ChunkSet | None = None
        head_sent = False
        while True:
            self._check_followed(transfer_id)
            part = self.incoming.part
            if part is None:
                await _within(ALIVE_SECONDS, self.incoming.begun.wait())
                yield DigestStep()
                continue
            if sent is None:
                sent = ChunkSet(part.manifest.geometry.chunk_count)
                yield DigestStep(part.manifest.size_bytes)
            if self.incoming.head and not head_sent:
                head_sent = True
                yield DigestStep(head=self.incoming.head)
            known = part.known
            if known != sent:
                for step in _steps(part, known - sent):
                    yield step
                sent = known
            elif self.incoming.verified.is_set():
                yield DigestStep(whole=True)
                return
            elif not await _within(ALIVE_SECONDS, part.changed()):
                yield DigestStep()

    def _check_followed(self, transfer_id: bytes) -> None:
        failure = self.incoming.failure
        if isinstance(failure, ContentChangedError):
            raise ContentChangedError(str(failure))
        if failure is not None:
            raise PeerUnavailableError(f"this peer cannot fetch {self._name}")
        if not self.incoming.verified.is_set() and self.claim.transfer_id != transfer_id:
            raise ContentNotHeldError("another peer fetches it now")


def _jitter(share: float) -> float:
    """About 1, so that many peers do not ask in one moment."""
    return random.uniform(1 - share, 1 + share)  # noqa: S311 - no secret


def _steps(part: ProvisionalPart, chunks: ChunkSet) -> list[DigestStep]:
    """The digests of those chunks."""
    most = MAX_DIGESTS_BYTES // DIGEST_BYTES
    pieces = [(at, min(at + most, stop)) for start, stop in chunks.ranges() for at in range(start, stop, most)]
    digests = part.manifest.digests
    return [DigestStep(digests=digests[at * DIGEST_BYTES : stop * DIGEST_BYTES], first=at) for at, stop in pieces]


async def _within(seconds: float, work: Awaitable[object]) -> bool:
    """Whether it ends in time."""
    try:
        async with asyncio.timeout(seconds):
            await work
    except TimeoutError:
        return False
    return True
