"""The metrics of downloads, as a port."""

from typing import Protocol

from minga_core.ids import PeerId
from minga_engine.swarm.events import DropReason


class TransferMetrics(Protocol):
    """What downloads count."""

    def received(self, source: PeerId, payload_bytes: int, *, complete: bool) -> None:
        """A chunk came and was verified; complete: its source has all of the content."""
        ...

    def corrupt(self, source: PeerId) -> None:
        """A source sent a wrong chunk."""
        ...

    def hedged(self) -> None:
        """A second source was asked for a chunk."""
        ...

    def dropped(self, reason: DropReason) -> None:
        """A source was dropped."""
        ...

    def transferred(self, ratio_to_bound: float) -> None:
        """A download is done that took long enough to be compared with its best second."""
        ...


class NoTransferMetrics:
    """Counts nothing."""

    def received(self, source: PeerId, payload_bytes: int, *, complete: bool) -> None:
        """See TransferMetrics."""

    def corrupt(self, source: PeerId) -> None:
        """See TransferMetrics."""

    def hedged(self) -> None:
        """See TransferMetrics."""

    def dropped(self, reason: DropReason) -> None:
        """See TransferMetrics."""

    def transferred(self, ratio_to_bound: float) -> None:
        """See TransferMetrics."""
