"""What the dead leave behind is collected in bounded passes, however much it is and whatever stands before it."""

from datetime import timedelta

import pytest

from minga_directory.garbage import SHARE_ROWS
from tests.conformance.harness import LONG, SHORT, Harness, lease, over, rows

pytestmark = pytest.mark.redis

ROWS = 130_000
PASS_ROWS = 10_000


async def pushed(directory: Harness, peer_id: str, count: int, ttl: timedelta = LONG) -> None:
    """A peer with so many rows, each with a content of its own."""
    await directory.register(peer_id, ttl=ttl)
    await directory.push(peer_id, rows(f"{peer_id}/{number}" for number in range(count)))


@pytest.mark.timeout(300)
async def test_the_rows_of_130_000_files_are_collected_to_the_end_and_others_meanwhile(redis_url: str) -> None:
    """1. A peer with many rows leaves, and one with few dies. 2. Passes collect both: the few rows long before the
    many, and all in a number of passes that follows from theirs. (Buckets that were empty stopped it once.)"""
    async with over(redis_url) as directory:
        await pushed(directory, "many", ROWS)
        await pushed(directory, "few", 10, SHORT)
        await directory.writer.leave(lease("many"))
        await directory.let_end("few")
        passes, few_gone_after = 0, 0
        while await directory.writer.reap(limit=PASS_ROWS):
            passes += 1
            assert passes < 2 * ROWS / SHARE_ROWS
            if not few_gone_after and not (await directory.reader.list_names(prefix="few/")).entries:
                few_gone_after = passes
        assert (await directory.reader.stats()).names == 0
    assert 0 < few_gone_after <= 2
