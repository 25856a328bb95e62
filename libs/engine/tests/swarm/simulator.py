"""A swarm in virtual time: every peer has its own scheduler and upload queue; links have rates and latency; nothing
else is real.

Chunks flow at once: a source shares its uplink fairly among those that it sends, none faster than an equal share of its
downloader's downlink. The directory names 20 random peers at a time, and learns of a new holder a second late; sources
name those that took chunks from them lately.
"""

import heapq
import math
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from minga_core.chunks import ChunkSet, Geometry
from minga_core.ids import ContentId, PeerId
from minga_engine.swarm import events as ev
from minga_engine.swarm.config import SwarmConfig
from minga_engine.swarm.scheduler import Scheduler
from minga_engine.swarm.serving_queue import ServingConfig, ServingQueue, ServingRequest
from minga_engine.swarm.updates import update_pause

DIRECTORY_DELAY_SECONDS = 1.0
"""From the first chunk to being found by others."""
MAX_NAMED = 20
TOLD_BYTES = 64 * 1024
"""A downloader learns of what has come of a chunk when it is so much more, as of a socket that is read."""
CONTENT = ContentId(bytes(32))


@dataclass(frozen=True)
class Link:
    """What a peer's machine is connected with. Bytes a second."""

    up: float
    down: float
    latency_seconds: float = 0.001


@dataclass(eq=False)
class Flow:
    """A chunk on its way."""

    source: "SimPeer"
    downloader: "SimPeer"
    request_id: int
    upload: ServingRequest
    left: float
    rate: float = 0.0
    since: float = 0.0
    untold: float = 0.0
    """What has come and its downloader does not know yet."""
    foreseen_at: float = math.inf
    """When it is looked at again whether all has come."""
    ended: bool = False


@dataclass
class SimPeer:
    """One machine: what it holds, what it is up to, and how it behaves."""

    peer_id: PeerId
    link: Link
    held: ChunkSet
    queue: ServingQueue
    behaviour: str = "honest"
    scheduler: Scheduler | None = None
    reads_ahead: int = 0
    """How many chunks a reader wants before all others; 0 for a download."""
    alive: bool = True
    finished_at: float | None = None
    listed_at: float | None = None
    woken_at: float | None = None
    sent: Counter[int] = field(default_factory=Counter)
    watchers: dict[PeerId, None] = field(default_factory=dict)
    news: ChunkSet | None = None
    """What the watchers are about to be sent; None while the next chunk is sent at once."""
    news_since: float | None = None
    downloaders: dict[PeerId, None] = field(default_factory=dict)
    asked: dict[int, tuple["SimPeer", int]] = field(default_factory=dict)
    """Upload id → who asked, and its own id of the request."""
    uploading: dict[int, Flow] = field(default_factory=dict)
    downloading: dict[int, Flow] = field(default_factory=dict)
    """By the downloader's id of the request."""


class Simulation:
    """A network of peers and its clock."""

    def __init__(
        self,
        size_bytes: int,
        seed: int = 1,
        config: SwarmConfig | None = None,
        *,
        uploads: ServingConfig | None = None,
        validate: bool = False,
    ) -> None:
        self.geometry = Geometry(size_bytes)
        self.config = config or SwarmConfig()
        self.uploads = uploads or ServingConfig()
        self.rng = random.Random(seed)
        self.now = 0.0
        self.peers: dict[PeerId, SimPeer] = {}
        self.downloaders: list[SimPeer] = []
        self._validate = validate
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0
        self._wakeups: dict[PeerId, float] = {}
        self._shared = True
        """Whether each flow has the rate of its links; that of an instant is made at its end."""

    # Setting up.

    def add_seed(self, name: str, link: Link, behaviour: str = "honest") -> SimPeer:
        """A peer that has everything."""
        peer = SimPeer(PeerId(name), link, ChunkSet.full(self.geometry.chunk_count), self._queue_of(), behaviour)
        peer.listed_at = 0.0
        self.peers[peer.peer_id] = peer
        return peer

    def add_fetcher(self, name: str, link: Link, origin_rate: float) -> SimPeer:
        """A peer that has nothing yet: it gets one chunk after the other from elsewhere."""
        peer = SimPeer(PeerId(name), link, ChunkSet(self.geometry.chunk_count), self._queue_of())
        peer.listed_at = 0.0
        self.peers[peer.peer_id] = peer
        for index in range(self.geometry.chunk_count):
            came_at = (self.geometry.offset(index) + self.geometry.length(index)) / origin_rate
            self.at(came_at, partial(self._hold, peer, index))
        return peer

    def _hold(self, peer: SimPeer, index: int) -> None:
        """One more chunk is there, which its watchers hear of."""
        peer.held.add(index)
        if peer.news is None:
            peer.news = ChunkSet(self.geometry.chunk_count, [index])
            self._send_news(peer)
        else:
            peer.news.add(index)
        self._next_uploads(peer)

    def add_downloader(self, name: str, link: Link, *, start_at: float = 0.0, reads_ahead: int = 0) -> SimPeer:
        """A peer that begins to download at some time, or to read from the first chunk to the last."""
        held = ChunkSet(self.geometry.chunk_count)
        rng = random.Random(self.rng.random())
        scheduler = Scheduler(self.geometry, held, self.config, rng, whole=not reads_ahead)
        peer = SimPeer(PeerId(name), link, held, self._queue_of(), scheduler=scheduler, reads_ahead=reads_ahead)
        self.downloaders.append(peer)
        self.at(start_at, lambda: self._join(peer))
        return peer

    def _queue_of(self) -> ServingQueue:
        return ServingQueue(self.uploads, random.Random(self.rng.random()))

    def kill_at(self, when: float, peer: SimPeer) -> None:
        """The peer's power goes."""
        self.at(when, lambda: self._die(peer))

    def at(self, when: float, deed: Callable[[], None]) -> None:
        """Something happens at a time."""
        self._order += 1
        heapq.heappush(self._queue, (when, self._order, deed))

    # Running.

    def run(self, limit_seconds: float = 100_000.0) -> None:
        """Until every living downloader is done, or the limit is reached."""
        while self._queue and self.now < limit_seconds and any(map(_is_unfinished, self.downloaders)):
            if not self._shared and self._queue[0][0] > self.now:
                self._share_links()
            self.now, _, deed = heapq.heappop(self._queue)
            deed()

    def unfinished(self) -> list[SimPeer]:
        """Downloaders that live and are not done, those yet to join among them."""
        return list(filter(_is_unfinished, self.downloaders))

    def _join(self, peer: SimPeer) -> None:
        self.peers[peer.peer_id] = peer
        self._read(peer)
        self._feed(peer, ev.Tick())

    def _read(self, peer: SimPeer) -> None:
        if peer.reads_ahead:
            position = next(iter(peer.held.missing()), self.geometry.chunk_count)
            self._feed(peer, ev.ReaderMoved(1, position, position + peer.reads_ahead, rest=True))

    def _feed(self, peer: SimPeer, event: ev.Event) -> None:
        if not peer.alive or peer.scheduler is None or peer.finished_at is not None:
            return
        for deed in peer.scheduler.handle(event, self.now):
            self._carry_out(peer, deed)
        # Bytes that come only raise what a source may be asked for; the next other event makes use of it.
        if self._validate and not isinstance(event, ev.BytesReceived):
            peer.scheduler.validate(self.now)
        wakeup = peer.scheduler.wakeup_at
        if wakeup is not None and self._wakeups.get(peer.peer_id) != wakeup:
            self._wakeups[peer.peer_id] = wakeup
            self.at(max(wakeup, self.now), lambda: self._wake(peer, wakeup))

    def _wake(self, peer: SimPeer, wakeup: float) -> None:
        if self._wakeups.get(peer.peer_id) == wakeup:
            self._feed(peer, ev.Tick())

    def _later(self, peer: SimPeer, event: ev.Event, delay: float) -> None:
        self.at(self.now + delay, lambda: self._feed(peer, event))

    def _carry_out(self, peer: SimPeer, deed: ev.Action) -> None:
        latency = peer.link.latency_seconds
        match deed:
            case ev.FindSources():
                known = [p for p in self.peers.values() if p.alive and p is not peer and self._is_listed(p)]
                for other in self.rng.sample(known, min(MAX_NAMED, len(known))):
                    self._later(peer, ev.SourceFound(other.peer_id, complete=other.held.complete), latency)
            case ev.ConnectSource(source):
                self._connect(peer, self.peers[source])
            case ev.DropSource(source):
                self.peers[source].watchers.pop(peer.peer_id, None)
            case ev.RequestChunk(request_id, source, candidates):
                other = self.peers[source]
                self.at(self.now + latency, lambda: self._serve(peer, other, request_id, candidates))
            case ev.CancelRequest(request_id):
                self._cancel(peer, request_id)
            case ev.Finished():
                peer.finished_at = self.now

    def _connect(self, peer: SimPeer, other: SimPeer) -> None:
        latency = peer.link.latency_seconds
        if not other.alive:
            self._later(peer, ev.SourceLost(other.peer_id), latency)
            return
        other.watchers[peer.peer_id] = None
        self._later(peer, ev.SourceHolds(other.peer_id, other.held.copy(), snapshot=True), 2 * latency)

    def _is_listed(self, peer: SimPeer) -> bool:
        return peer.listed_at is not None and peer.listed_at <= self.now

    # The sources' side.

    def _serve(self, downloader: SimPeer, source: SimPeer, request_id: int, candidates: ChunkSet) -> None:
        """A request has come."""
        latency = downloader.link.latency_seconds
        if not source.alive:
            self._later(downloader, ev.RequestFailed(request_id, ev.FailureReason.LOST), latency)
            return
        size = max(self.geometry.length(index) for index in candidates)
        upload_id = None
        if source.behaviour != "busy":
            upload_id = source.queue.ask(CONTENT, candidates.bits, downloader.peer_id, size, self.now)
        if upload_id is None:
            failed = ev.RequestFailed(request_id, ev.FailureReason.BUSY, retry_after_seconds=0.5)
            self._later(downloader, failed, latency)
            return
        source.asked[upload_id] = (downloader, request_id)
        self._name_downloaders(downloader, source)
        self._next_uploads(source)

    def _name_downloaders(self, downloader: SimPeer, source: SimPeer) -> None:
        for other in list(source.downloaders)[-MAX_NAMED:]:
            if other != downloader.peer_id:
                self._later(downloader, ev.SourceFound(other, complete=False), downloader.link.latency_seconds)
        source.downloaders.pop(downloader.peer_id, None)
        source.downloaders[downloader.peer_id] = None

    def _next_uploads(self, source: SimPeer) -> None:
        while source.alive and (upload := source.queue.next(lambda _: source.held.bits, self.now)) is not None:
            downloader, request_id = source.asked[upload.request_id]
            if upload.index < 0:
                self._drop_upload(source, upload.request_id)
                failed = ev.RequestFailed(request_id, ev.FailureReason.NOTHING_WANTED)
                self._later(downloader, failed, downloader.link.latency_seconds)
                continue
            source.sent[upload.index] += 1
            self._later(downloader, ev.ChunkChosen(request_id, upload.index), downloader.link.latency_seconds)
            left = float(self.geometry.length(upload.index))
            flow = Flow(source, downloader, request_id, upload, left, since=self.now)
            source.uploading[upload.request_id] = flow
            downloader.downloading[request_id] = flow
            self._shared = False
        wakeup = source.queue.wakeup_at
        if wakeup is not None and source.woken_at != wakeup:
            source.woken_at = wakeup
            self.at(wakeup, lambda: self._wake_uploads(source, wakeup))

    def _wake_uploads(self, source: SimPeer, wakeup: float) -> None:
        if source.woken_at == wakeup:
            self._next_uploads(source)

    def _drop_upload(self, source: SimPeer, upload_id: int, sent_bytes: int = 0) -> None:
        source.asked.pop(upload_id, None)
        source.queue.ended(upload_id, self.now, sent_bytes=sent_bytes)

    def _cancel(self, downloader: SimPeer, request_id: int) -> None:
        flow = downloader.downloading.pop(request_id, None)
        if flow is not None:
            self._end_flow(flow)
            self._drop_upload(flow.source, flow.upload.request_id)
            self._shared = False
            self._next_uploads(flow.source)
            return
        for source in self.peers.values():
            for upload_id in [key for key, value in source.asked.items() if value == (downloader, request_id)]:
                self._drop_upload(source, upload_id)

    # Links.

    def _share_links(self) -> None:
        """Every flow gets its max-min fair rate: the tightest link is shared out first, then the next."""
        self._shared = True
        links: dict[tuple[str, PeerId], list[Flow]] = {}
        room: dict[tuple[str, PeerId], float] = {}
        for peer in self.peers.values():
            for flow in peer.uploading.values():
                for link, rate in (
                    (("up", peer.peer_id), peer.link.up),
                    (("down", flow.downloader.peer_id), flow.downloader.link.down),
                ):
                    links.setdefault(link, []).append(flow)
                    room[link] = rate
        open_count = {link: len(flows) for link, flows in links.items()}
        rates: dict[int, float] = {}
        while open_count:
            tightest = min(open_count, key=lambda link: room[link] / open_count[link])
            rate = room[tightest] / open_count[tightest]
            for flow in links[tightest]:
                if id(flow) in rates:
                    continue
                rates[id(flow)] = rate
                for link in (("up", flow.source.peer_id), ("down", flow.downloader.peer_id)):
                    room[link] -= rate
                    open_count[link] -= 1
                    if not open_count[link]:
                        del open_count[link]
            open_count.pop(tightest, None)
        for peer in self.peers.values():
            for flow in peer.uploading.values():
                rate = 0.0 if peer.behaviour == "stalls" else rates[id(flow)]
                if not math.isclose(rate, flow.rate, rel_tol=1e-6):
                    self._set_rate(flow, rate)

    def _set_rate(self, flow: Flow, rate: float) -> None:
        moved = flow.rate * (self.now - flow.since)
        flow.left -= moved
        flow.untold += moved
        flow.since, flow.rate = self.now, rate
        if flow.untold >= TOLD_BYTES:
            come = ev.BytesReceived(flow.request_id, int(flow.untold))
            self._later(flow.downloader, come, flow.downloader.link.latency_seconds)
            flow.untold = 0.0
        self._foresee(flow)

    def _foresee(self, flow: Flow) -> None:
        """Look at a flow when all of it has come, if its rate stays; one that became slower is looked at once more."""
        ends_at = self.now + max(0.0, flow.left) / flow.rate if flow.rate > 0 else math.inf
        if ends_at < flow.foreseen_at:
            flow.foreseen_at = ends_at
            self.at(ends_at, lambda: self._look(flow, ends_at))

    def _look(self, flow: Flow, foreseen_at: float) -> None:
        if flow.ended or flow.foreseen_at != foreseen_at:
            return
        flow.foreseen_at = math.inf
        if flow.left - flow.rate * (self.now - flow.since) > 1.0:
            self._set_rate(flow, flow.rate)
        else:
            self._arrive(flow)

    def _end_flow(self, flow: Flow) -> None:
        flow.ended = True
        flow.source.uploading.pop(flow.upload.request_id, None)
        flow.downloader.downloading.pop(flow.request_id, None)

    def _arrive(self, flow: Flow) -> None:
        self._end_flow(flow)
        size = self.geometry.length(flow.upload.index)
        self._drop_upload(flow.source, flow.upload.request_id, sent_bytes=size)
        self.at(self.now + flow.downloader.link.latency_seconds, lambda: self._deliver(flow))
        self._shared = False
        self._next_uploads(flow.source)

    def _deliver(self, flow: Flow) -> None:
        downloader, index = flow.downloader, flow.upload.index
        size = self.geometry.length(index)
        self._feed(downloader, ev.BytesReceived(flow.request_id, size // 2))
        if flow.source.behaviour == "corrupts":
            self._feed(downloader, ev.ChunkCorrupt(flow.request_id))
            return
        if downloader.alive and index not in downloader.held:
            downloader.held.add(index)
            if downloader.listed_at is None:
                downloader.listed_at = self.now + DIRECTORY_DELAY_SECONDS
        self._feed(downloader, ev.ChunkArrived(flow.request_id, index, size))
        self._read(downloader)
        if downloader.news is None:
            downloader.news = ChunkSet(self.geometry.chunk_count, [index])
            self._send_news(downloader)
        else:
            downloader.news.add(index)
        self._next_uploads(downloader)

    def _send_news(self, peer: SimPeer) -> None:
        """Send the chunks that have come since the last time, and no others for a while."""
        news, peer.news = peer.news, None
        if not news or not peer.alive:
            return
        for watcher in list(peer.watchers):
            update = ev.SourceHolds(peer.peer_id, news, snapshot=False)
            self._later(self.peers[watcher], update, peer.link.latency_seconds)
        peer.news = ChunkSet(self.geometry.chunk_count)
        peer.news_since = self.now if peer.news_since is None else peer.news_since
        pause = update_pause(len(peer.watchers), self.now - peer.news_since)
        self.at(self.now + pause, lambda: self._send_news(peer))

    def _die(self, peer: SimPeer) -> None:
        peer.alive = False
        for flow in list(peer.uploading.values()):
            self._end_flow(flow)
            self._shared = False
        for flow in list(peer.downloading.values()):
            self._end_flow(flow)
            self._drop_upload(flow.source, flow.upload.request_id)
            self._shared = False
            self._next_uploads(flow.source)
        for downloader, request_id in list(peer.asked.values()):
            self._later(downloader, ev.RequestFailed(request_id, ev.FailureReason.LOST), 0.0)
        peer.asked.clear()
        for watcher in list(peer.watchers):
            self._later(self.peers[watcher], ev.SourceLost(peer.peer_id), 0.0)

    # Looking.

    def ratio(self, seed: SimPeer, downloaders: list[SimPeer]) -> float:
        """Time of the last one to the lower bound of Kumar and Ross (2006): max(F/u_s, F/d, N·F/(u_s + N·u))."""
        size, count = self.geometry.size_bytes, len(downloaders)
        up = sum(peer.link.up for peer in downloaders)
        slowest = min(peer.link.down for peer in downloaders)
        bound = max(size / seed.link.up, size / slowest, count * size / (seed.link.up + up))
        return max(peer.finished_at or float("inf") for peer in downloaders) / bound


def _is_unfinished(peer: SimPeer) -> bool:
    return peer.alive and peer.finished_at is None
