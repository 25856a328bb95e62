"""How it goes when peers fetch something ahead of time, as plain values."""

from dataclasses import dataclass, field
from typing import Any

from minga_core.errors import MingaError
from minga_core.ids import PeerId
from minga_engine.wire.preheating import PreheatStep


@dataclass(frozen=True, slots=True)
class PreheatedPeer:
    """How far one peer is, or how it ended: with an error, or done.

    >>> client.preheat("models/model.bin", on="1").peers[0].error is None
    True
    """

    peer_id: PeerId
    zone: str
    step: PreheatStep = field(default_factory=PreheatStep)
    done: bool = False
    error: MingaError | None = None


@dataclass(slots=True)
class Preheated:
    """How an item went on each peer that was asked.

    >>> len(client.preheat("models/model.bin", on="2").done)
    2
    """

    item: str
    wanted: int = 0
    """How many peers shall have it."""
    by_peer: dict[PeerId, PreheatedPeer] = field(default_factory=dict)

    @property
    def peers(self) -> list[PreheatedPeer]:
        """Those that were asked, in the order of their ids."""
        return [self.by_peer[peer_id] for peer_id in sorted(self.by_peer)]

    @property
    def done(self) -> list[PreheatedPeer]:
        """Those that have it."""
        return [peer for peer in self.peers if peer.done]

    @property
    def failed(self) -> list[PreheatedPeer]:
        """Those that were asked and do not have it."""
        return [peer for peer in self.peers if peer.error is not None]

    @property
    def missing(self) -> int:
        """How many more peers should have it."""
        return max(0, self.wanted - len(self.done))

    @property
    def resolved(self) -> tuple[str, ...]:
        """What it was: one digest or commit, several when it changed meanwhile, none where there is no such thing."""
        return tuple(sorted({peer.step.resolved for peer in self.done if peer.step.resolved}))

    @property
    def size_bytes(self) -> int:
        """Of all its files; 0 until it is known."""
        return max((peer.step.size_bytes for peer in self.peers), default=0)

    def progress(self) -> dict[str, Any]:
        """How far it is, in a few fields for JSON."""
        return {
            "item": self.item,
            "wanted": self.wanted,
            "done": len(self.done),
            "failed": len(self.failed),
            "held_bytes": sum(peer.step.held_bytes for peer in self.peers if peer.error is None),
            "size_bytes": self.size_bytes,
        }

    def document(self) -> dict[str, Any]:
        """How it went on each peer, for JSON (docs/preheat.md)."""
        peers = [
            {
                "peer_id": peer.peer_id,
                "zone": peer.zone,
                "done": peer.done,
                "error": None if peer.error is None else {"code": peer.error.code.value, "message": str(peer.error)},
                "held_bytes": peer.step.held_bytes,
                "local_bytes": peer.step.local_bytes,
                "peers_bytes": peer.step.peers_bytes,
                "upstream_bytes": peer.step.upstream_bytes,
            }
            for peer in self.peers
        ]
        return self.progress() | {"missing": self.missing, "resolved": list(self.resolved), "peers": peers}
