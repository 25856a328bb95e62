"""What all downloads of a process have in common."""

from collections.abc import Callable
from dataclasses import dataclass, field

from minga_engine.swarm.config import SwarmConfig
from minga_engine.transfer.demand import Demands
from minga_engine.transfer.metrics import NoTransferMetrics, TransferMetrics
from minga_engine.wire.messages import SourceAddress
from minga_runtime.rate_limit import RateLimit


@dataclass(frozen=True, slots=True)
class TransferOptions:
    """How to download; the default suits a client that serves nothing."""

    requester: Callable[[], SourceAddress | None] | None = None
    """This peer, when it serves what it has and others can reach it."""
    config: SwarmConfig = field(default_factory=SwarmConfig)
    metrics: TransferMetrics = field(default_factory=NoTransferMetrics)
    down: RateLimit = field(default_factory=lambda: RateLimit(None))
    """The limit of received payload."""
    demands: Demands = field(default_factory=Demands)
    """What is read while it arrives."""

    @property
    def own_address(self) -> SourceAddress | None:
        """This peer as others are to reach it; None for a client, and without an address."""
        return self.requester() if self.requester is not None else None
