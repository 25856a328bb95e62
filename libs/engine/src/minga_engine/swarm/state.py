"""What the scheduler knows: chunks held, sources and what they have, requests in flight."""

from array import array

from minga_core.chunks import ChunkSet, Geometry
from minga_core.ids import PeerId
from minga_engine.swarm.choosing import members
from minga_engine.swarm.requests import RequestTable
from minga_engine.swarm.sources import Source


class SwarmState:
    """Bitmaps are integers: bit i stands for chunk i."""

    def __init__(self, geometry: Geometry, held: ChunkSet) -> None:
        self.geometry = geometry
        self.count = geometry.chunk_count
        self.all = (1 << self.count) - 1
        self.held = held.bits
        self.held_count = len(held)
        self.sources: dict[PeerId, Source] = {}
        self.connected: dict[PeerId, Source] = {}
        self.requests = RequestTable()
        self.rarity = array("I", bytes(4 * self.count))
        """For each chunk, how many partial sources have it. Complete sources have every chunk alike."""
        self.spread = 0
        """Bitmap of the chunks that some partial source has."""
        self.spread_changed = False
        """Whether the current event changed `spread`, or which sources are complete."""

    @property
    def finished(self) -> bool:
        """Whether every chunk is held."""
        return self.held == self.all

    def hold(self, index: int) -> bool:
        """Add a chunk; false when it is held already."""
        bit = 1 << index
        if self.held & bit:
            return False
        self.held |= bit
        self.held_count += 1
        return True

    def set_complete(self, source: Source) -> None:
        """Note that a source has every chunk."""
        if not source.complete:
            self.set_bits(source, 0)
            self.spread_changed = True
        source.complete = True
        source.bits = self.all

    def set_partial(self, source: Source) -> None:
        """Note that a source lacks chunks: from now on its chunks count in rarity."""
        if source.complete:
            source.complete, source.bits, self.spread_changed = False, 0, True

    def set_bits(self, source: Source, bits: int) -> None:
        """Note what a source has, and update the rarity."""
        if source.complete:
            source.bits = bits
            return
        before = self.spread
        for index in members(bits & ~source.bits):
            self.rarity[index] += 1
        for index in members(source.bits & ~bits):
            self.rarity[index] -= 1
            if not self.rarity[index]:
                self.spread &= ~(1 << index)
        self.spread |= bits
        self.spread_changed |= self.spread != before
        source.bits = bits
