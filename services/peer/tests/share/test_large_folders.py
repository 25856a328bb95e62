"""Very many files: work in proportion to what has changed. Counted, not timed."""

from minga_core.names import Name
from minga_engine.parts.files import Fingerprint
from minga_peer.share.hash_queue import BATCH_BYTES, BATCH_FILES, _Waiting
from minga_peer.share.root import FoundFile

def test_waiting_files_are_not_looked_at_one_by_one_for_each_that_is_hashed() -> None:
    """A hundred thousand new files would be compared with each other's times ten billion times."""
    waiting = _Waiting()
    for number in range(2_000):
        waiting.put(
            FoundFile(Name(f"{number}"), f"{number}", Fingerprint(1, 0, 0, number, 0)), _Instant(number % 7 + 1)
        )
    _Instant.compared = 0
    for _ in range(1_000):
        assert waiting.take(0.0, BATCH_FILES, BATCH_BYTES) == []
        assert waiting.next_due() == 1
    assert _Instant.compared < 10_000
    taken = [found.name for _ in range(4) for found in waiting.take(9.0, BATCH_FILES, BATCH_BYTES)]
    assert len(set(taken)) == 2_000
    assert [int(name) % 7 for name in taken] == sorted(int(name) % 7 for name in taken)
    assert waiting.next_due() is None


class _Instant(float):
    """Counts its comparisons."""

    compared = 0

    def __lt__(self, other: float) -> bool:
        _Instant.compared += 1
        return super().__lt__(other)

    def __le__(self, other: float) -> bool:
        _Instant.compared += 1
        return super().__le__(other)

    def __gt__(self, other: float) -> bool:
        _Instant.compared += 1
        return super().__gt__(other)
