"""The simulated directory: which peer holds what, and tables encoded beforehand."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from unittest.mock import AsyncMock

import pytest

from bench.directory import fixture
from bench.directory.fill import TRIES, fill
from bench.directory.fixture import Layout
from bench.directory.prepared import PreparedTables
from bench.directory.scale import SCALES
from bench.directory.scenarios.emptied import COPIES
from bench.results import reason
from minga_core.errors import StoreUnavailableError
from minga_core.ids import PeerId
from minga_core.names import parse_name
from minga_core.records import PeerInfo
from minga_protos.registry.v1 import registry_pb2 as pb
from minga_registry.adapters import PushEnd, PushHeader, RowBatch, push_step


def test_layout_gives_every_content_its_number_of_holders() -> None:
    """And every peer as many files as every other."""
    layout = Layout(names=400, copies=5, peers=40)
    held = Counter(row.key for peer in range(layout.peers) for row in layout.rows_of(peer))
    assert set(held.values()) == {5}
    assert len(held) == 400
    assert {len(list(layout.rows_of(peer))) for peer in range(layout.peers)} == {layout.files_a_peer}


def test_layout_that_does_not_come_out_even_is_refused() -> None:
    """Rather than rounded."""
    with pytest.raises(ValueError, match="blocks"):
        Layout(names=401, copies=5, peers=40)


@pytest.mark.parametrize("scale", SCALES.values(), ids=lambda scale: scale.name)
def test_layouts_of_every_scale_come_out_even(scale) -> None:  # type: ignore[no-untyped-def]
    """So that no run fails half way."""
    Layout(scale.lookup_names, scale.lookup_holders, scale.lookup_peers)
    Layout(scale.table_peers * scale.table_files // scale.table_copies, scale.table_copies, scale.table_peers)
    for peers, files in ((scale.emptied_peers, scale.emptied_files), (scale.dying_peers, scale.dying_files)):
        Layout(peers * files // COPIES, COPIES, peers)


def test_fixture_names_are_valid_names() -> None:
    """The registry accepts them as they are."""
    for number in (0, 999, 1_000_000):
        assert parse_name(fixture.name(number)) == fixture.name(number)


def test_prepared_tables_are_what_the_peer_holds() -> None:
    """Blocks joined by their bytes are read as one message with the rows of all. Those in use may have come before."""
    layout = Layout(names=400, copies=5, peers=40)
    tables = PreparedTables(layout, [3])
    held = [fixture.row(number) for block in layout.blocks_of(3) for number in layout.numbers_in(block)]
    others = [row for row in held if not fixture.is_in_use(row.size_bytes - fixture.row(0).size_bytes)]
    assert 0 < len(others) < len(held) == tables.rows_a_peer
    pushes = [(tables.messages(3, 7), True, held), (tables.messages_of_others(3, 6, 7), False, others)]
    for messages, whole, wanted in pushes:
        begin, *batches, end = [push_step(pb.PushTableRequest.FromString(message)) for message in messages]
        assert isinstance(begin, PushHeader)
        assert (begin.lease.peer_id, begin.whole, begin.revision) == (fixture.peer_id(3), whole, 7)
        rows = [row for step in batches if isinstance(step, RowBatch) for row in step.put]
        assert sorted(rows) == sorted(wanted)
        assert end == PushEnd(len(rows), 0)


class BusyWriter:
    """A writer whose store answers too late at first."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.registered: list[PeerId] = []

    async def register(self, info: PeerInfo, ttl: timedelta) -> None:
        """Register, unless the store is busy."""
        if self.failures:
            self.failures -= 1
            raise StoreUnavailableError("no answer in time")
        self.registered.append(info.peer_id)

    @asynccontextmanager
    async def push_table(self, *begin: object, **named: object) -> AsyncIterator[AsyncMock]:
        """Accept anything."""
        yield AsyncMock()

    async def aclose(self) -> None:
        """Nothing to close."""


@pytest.mark.parametrize(("failures", "filled"), [(TRIES - 1, True), (10 * TRIES, False)])
async def test_a_busy_store_is_filled_in_spite_of_calls_over_their_limit(
    failures: int, filled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`make bench-directory` ended there on a busy machine, with "unhandled errors in a TaskGroup"."""
    writer = BusyWriter(failures)
    monkeypatch.setattr("bench.directory.fill.connect_writer", lambda url: writer)
    filling = fill("redis://nowhere", Layout(names=40, copies=1, peers=4), [0, 1, 2, 3])
    if filled:
        await filling
        assert sorted(writer.registered) == [fixture.peer_id(number) for number in range(4)]
    else:
        with pytest.raises(ExceptionGroup) as failed:
            await filling
        assert reason(failed.value) == "StoreUnavailableError: no answer in time"
