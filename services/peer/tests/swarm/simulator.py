"""A swarm in virtual time: every peer has its own scheduler; links have rates and latency; nothing else is real.

A chunk occupies its source's uplink and its taker's downlink, one chunk after the other on each, so results are a
little worse than with links that are shared fairly. The directory names 20 random peers at a time.
"""

import heapq
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from minga_core.chunks import ChunkSet, Geometry
from minga_core.ids import PeerId
from minga_peer.swarm import events as ev
from minga_peer.swarm.config import SwarmConfig
from minga_peer.swarm.scheduler import Scheduler


@dataclass(frozen=True)
class Link:
    """What a peer's machine is connected with. Bytes a second."""

    up: float
    down: float
    latency_seconds: float = 0.001


@dataclass
class SimPeer:
    """One machine: what it holds, what it is up to, and how it behaves."""

    peer_id: PeerId
    link: Link
    held: ChunkSet
    behaviour: str = "honest"
    scheduler: Scheduler | None = None
    alive: bool = True
    up_free_at: float = 0.0
    down_free_at: float = 0.0
    finished_at: float | None = None
    sent: Counter[int] = field(default_factory=Counter)
    watchers: dict[PeerId, None] = field(default_factory=dict)
    outgoing: set[tuple[PeerId, int]] = field(default_factory=set)


class Simulation:
    """A network of peers and its clock."""

    def __init__(
        self, size_bytes: int, seed: int = 1, config: SwarmConfig | None = None, *, validate: bool = False
    ) -> None:
        self.geometry = Geometry(size_bytes)
        self.config = config or SwarmConfig()
        self.rng = random.Random(seed)
        self.now = 0.0
        self.peers: dict[PeerId, SimPeer] = {}
        self.downloaders: list[SimPeer] = []
        self._validate = validate
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0
        self._wakeups: dict[PeerId, float] = {}

    # Setting up.

    def add_seed(self, name: str, link: Link, behaviour: str = "honest") -> SimPeer:
        """A peer that has everything."""
        peer = SimPeer(PeerId(name), link, ChunkSet.full(self.geometry.chunk_count), behaviour)
        self.peers[peer.peer_id] = peer
        return peer

    def add_downloader(self, name: str, link: Link, *, start_at: float = 0.0) -> SimPeer:
        """A peer that begins to download at some time."""
        held = ChunkSet(self.geometry.chunk_count)
        scheduler = Scheduler(self.geometry, held, self.config, random.Random(self.rng.random()))
        peer = SimPeer(PeerId(name), link, held, scheduler=scheduler)
        self.downloaders.append(peer)
        self.at(start_at, lambda: self._join(peer))
        return peer

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
        while self._queue and self.now < limit_seconds and self.unfinished():
            self.now, _, deed = heapq.heappop(self._queue)
            deed()

    def unfinished(self) -> list[SimPeer]:
        """Downloaders that live and are not done, those yet to join among them."""
        return [peer for peer in self.downloaders if peer.alive and peer.finished_at is None]

    def _join(self, peer: SimPeer) -> None:
        self.peers[peer.peer_id] = peer
        self._feed(peer, ev.Tick())

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

    def _carry_out(self, peer: SimPeer, deed: ev.Instruction) -> None:
        latency = peer.link.latency_seconds
        match deed:
            case ev.FindSources():
                known = [p for p in self.peers.values() if p.alive and p is not peer and (p.held or p.scheduler)]
                for other in self.rng.sample(known, min(20, len(known))):
                    self._later(peer, ev.SourceFound(other.peer_id, complete=other.held.complete), latency)
            case ev.ConnectSource(source):
                self._connect(peer, self.peers[source])
            case ev.DropSource(source):
                self.peers[source].watchers.pop(peer.peer_id, None)
            case ev.RequestChunk(request_id, source, candidates):
                other = self.peers[source]
                self.at(self.now + latency, lambda: self._serve(peer, other, request_id, candidates))
            case ev.CancelRequest(request_id):
                for other in self.peers.values():
                    other.outgoing.discard((peer.peer_id, request_id))
            case ev.Finished():
                peer.finished_at = self.now

    def _connect(self, peer: SimPeer, other: SimPeer) -> None:
        latency = peer.link.latency_seconds
        if not other.alive:
            self._later(peer, ev.SourceLost(other.peer_id), latency)
            return
        other.watchers[peer.peer_id] = None
        self._later(peer, ev.SourceHolds(other.peer_id, other.held.copy(), snapshot=True), 2 * latency)

    def _serve(self, taker: SimPeer, source: SimPeer, request_id: int, candidates: tuple[int, ...]) -> None:
        """The source's side of a request."""
        if not source.alive:
            self._later(taker, ev.RequestFailed(request_id, ev.FailureReason.LOST), taker.link.latency_seconds)
            return
        if source.behaviour == "busy":
            failed = ev.RequestFailed(request_id, ev.FailureReason.BUSY, retry_after_seconds=0.5)
            self._later(taker, failed, taker.link.latency_seconds)
            return
        held = [index for index in candidates if index in source.held]
        if not held:
            failed = ev.RequestFailed(request_id, ev.FailureReason.NOTHING_WANTED)
            self._later(taker, failed, taker.link.latency_seconds)
            return
        least = min(source.sent[index] for index in held)
        index = self.rng.choice([index for index in held if source.sent[index] == least])
        source.sent[index] += 1
        source.outgoing.add((taker.peer_id, request_id))
        self._later(taker, ev.ChunkChosen(request_id, index), taker.link.latency_seconds)
        if source.behaviour == "stalls":
            return
        self._transmit(taker, source, request_id, index)

    def _transmit(self, taker: SimPeer, source: SimPeer, request_id: int, index: int) -> None:
        size = self.geometry.length(index)
        begin = max(self.now, source.up_free_at)
        source.up_free_at = begin + size / source.link.up
        self.at((begin + source.up_free_at) / 2, lambda: self._progress(taker, source, request_id, size // 2))
        self.at(source.up_free_at, lambda: self._come_down(taker, source, request_id, index))

    def _come_down(self, taker: SimPeer, source: SimPeer, request_id: int, index: int) -> None:
        """The chunk has left the source; it is there once it has also passed the taker's downlink."""
        done = max(self.now, taker.down_free_at + self.geometry.length(index) / taker.link.down)
        taker.down_free_at = done
        self.at(done + taker.link.latency_seconds, lambda: self._deliver(taker, source, request_id, index))

    def _under_way(self, taker: SimPeer, source: SimPeer, request_id: int) -> bool:
        return source.alive and (taker.peer_id, request_id) in source.outgoing

    def _progress(self, taker: SimPeer, source: SimPeer, request_id: int, count: int) -> None:
        if self._under_way(taker, source, request_id):
            self._feed(taker, ev.BytesReceived(request_id, count))

    def _deliver(self, taker: SimPeer, source: SimPeer, request_id: int, index: int) -> None:
        if not self._under_way(taker, source, request_id):
            return
        source.outgoing.discard((taker.peer_id, request_id))
        size = self.geometry.length(index)
        self._feed(taker, ev.BytesReceived(request_id, size - size // 2))
        if source.behaviour == "corrupts":
            self._feed(taker, ev.ChunkCorrupt(request_id))
            return
        self._feed(taker, ev.ChunkArrived(request_id, index, size))
        if index not in taker.held and taker.alive:
            taker.held.add(index)
            for watcher in list(taker.watchers):
                news = ev.SourceHolds(taker.peer_id, ChunkSet(self.geometry.chunk_count, [index]), snapshot=False)
                self._later(self.peers[watcher], news, taker.link.latency_seconds)

    def _die(self, peer: SimPeer) -> None:
        peer.alive = False
        for taker, request_id in list(peer.outgoing):
            self._later(self.peers[taker], ev.RequestFailed(request_id, ev.FailureReason.LOST), 0.0)
        peer.outgoing.clear()
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
