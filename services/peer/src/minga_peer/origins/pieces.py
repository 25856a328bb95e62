"""Which connection to an origin fetches which chunks of a file."""

from dataclasses import dataclass

from minga_core.chunks import ChunkSet, Geometry

PIECE_BYTES = 32 * 1024 * 1024
"""What a connection takes at a time: long beside the making of a connection, short beside what a reader reads ahead."""
GAP_BYTES = 1024 * 1024
"""What is held between two gaps of no more is fetched once more: another request would cost more."""


@dataclass(slots=True)
class Piece:
    """Chunks that one connection fetches, one after the other."""

    start: int
    stop: int
    """Behind the last chunk that it has taken so far."""
    limit: int
    """Behind the last chunk that it may take without asking the origin again."""


class Pieces:
    """The missing chunks of a file, taken in order. held: those that are not missing."""

    def __init__(self, geometry: Geometry, held: ChunkSet) -> None:
        self._step = max(1, PIECE_BYTES // geometry.chunk_size_bytes)
        self._left = _without_gaps(held.missing(), GAP_BYTES // geometry.chunk_size_bytes)

    @property
    def left_count(self) -> int:
        """Chunks that nobody has taken."""
        return len(self._left)

    def take(self, *, alone: bool) -> Piece | None:
        """The next ones; None when all are taken. alone: whether the connection may go on behind them."""
        run = next(self._left.ranges(), None)
        if run is None:
            return None
        start, end = run
        stop = min(end, start + self._step)
        self._remove(start, stop)
        return Piece(start, stop, end if alone else stop)

    def has(self, piece: Piece, index: int) -> bool:
        """Whether a piece has a chunk. It is given more as long as that is what comes next."""
        if index == piece.stop < piece.limit and index == next(iter(self._left), None):
            piece.stop = min(piece.limit, index + self._step)
            self._remove(index, piece.stop)
        return piece.start <= index < piece.stop

    def give_back(self, piece: Piece, held: ChunkSet) -> None:
        """Have another connection fetch what did not come of a piece."""
        self.add(ChunkSet.from_ranges(held.count, [(piece.start, piece.stop)]) - held)

    def add(self, chunks: ChunkSet) -> None:
        """Have these fetched too."""
        self._left |= chunks

    def _remove(self, start: int, stop: int) -> None:
        self._left -= ChunkSet.from_ranges(self._left.count, [(start, stop)])


def _without_gaps(missing: ChunkSet, gap_count: int) -> ChunkSet:
    """The same chunks, and those between two of them that are no more than so many."""
    merged: list[tuple[int, int]] = []
    for start, stop in missing.ranges():
        if merged and start - merged[-1][1] <= gap_count:
            start = merged.pop()[0]
        merged.append((start, stop))
    return ChunkSet.from_ranges(missing.count, merged)
