"""How often each of many chunks was counted, as bitmaps: any number of chunks costs as little as one."""

import sys


class ChunkCounts:
    """A number for each chunk, 0 at first; the greatest is at most `most`."""

    def __init__(self, most: int = sys.maxsize) -> None:
        self._most = most
        self._more_than: list[int] = []
        """At k: the chunks whose number is above k."""

    def above(self, number: int) -> int:
        """Bitmap of the chunks whose number is above that."""
        return self._more_than[number] if number < len(self._more_than) else 0

    def least(self, chunks: int) -> tuple[int, int]:
        """The least number of some chunks, and which of them have it. chunks: a bitmap that is not empty."""
        for number, more in enumerate(self._more_than):
            if fewest := chunks & ~more:
                return number, fewest
        return len(self._more_than), chunks

    def add(self, chunks: int) -> None:
        """Count each chunk of a bitmap once more."""
        for number, more in enumerate(self._more_than):
            self._more_than[number] = more | chunks
            chunks &= more
            if not chunks:
                return
        if chunks and len(self._more_than) < self._most:
            self._more_than.append(chunks)

    def remove(self, chunks: int) -> None:
        """Count each chunk of a bitmap once less."""
        for number in range(len(self._more_than) - 1, -1, -1):
            counted = self._more_than[number] & chunks
            self._more_than[number] ^= counted
            chunks ^= counted
        while self._more_than and not self._more_than[-1]:
            self._more_than.pop()
