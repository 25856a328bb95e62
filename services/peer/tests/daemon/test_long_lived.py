"""What garbage collection looks at while a table grows."""

import asyncio
import gc
from collections.abc import Iterator

import pytest

from minga_core.ids import ContentId
from minga_core.names import Name
from minga_core.records import FileRow, RowKey
from minga_peer.daemon.long_lived import STEP_ROWS, LongLived
from minga_peer.share.table import FileTable, RowsChanged


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    threshold = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*threshold)


def test_a_table_that_grows_is_not_looked_at_again_and_again() -> None:
    """A collection looks at the last step at most; rows that only change freeze nothing; rows are freed as ever."""
    table = FileTable()
    long_lived = LongLived(table)
    table.on_change(lambda _: long_lived.table_changed())
    for start in range(0, 3 * STEP_ROWS, 1_000):
        table.apply(RowsChanged(tuple(_row(number) for number in range(start, start + 1_000))))
    # A row and its key are two each.
    assert len(gc.get_objects()) < 2.5 * STEP_ROWS
    frozen = gc.get_freeze_count()
    assert frozen >= 3 * STEP_ROWS
    for start in range(0, 3 * STEP_ROWS, 1_000):
        table.apply(RowsChanged(tuple(_row(number, 7) for number in range(start, start + 1_000))))
    assert gc.get_freeze_count() <= frozen
    table.apply(RowsChanged((), tuple(row.key for row in table.rows())))
    assert gc.get_freeze_count() < frozen - 3 * STEP_ROWS


async def test_a_first_scan_is_not_interrupted() -> None:
    """Collections go on once it is over."""
    over = asyncio.Event()

    async def done() -> None:
        await over.wait()

    scan = asyncio.create_task(LongLived(FileTable()).first_scan(done))
    await asyncio.sleep(0)
    assert not gc.isenabled()
    over.set()
    await scan
    assert gc.isenabled()


def _row(number: int, modified_ns: int = 0) -> FileRow:
    return FileRow(RowKey(Name(f"{number}"), ContentId(b"%032d" % number)), 1, modified_ns, 0)
