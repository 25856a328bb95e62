"""The made-up world, and tables encoded beforehand."""

from collections import Counter

import pytest

from bench.directory import world
from bench.directory.prepared import PreparedTables
from bench.directory.scale import SCALES
from bench.directory.world import World
from minga_core.names import parse_name
from minga_protos.registry.v1 import registry_pb2 as pb
from minga_registry.adapters import PushEnd, PushHeader, RowBatch, push_step


def test_every_content_has_as_many_holders_as_was_said_and_they_have_it() -> None:
    """Both ways of asking agree."""
    made = World(names=400, copies=5, peers=40)
    held = Counter(row.key for peer in range(made.peers) for row in made.rows_of(peer))
    assert set(held.values()) == {5}
    assert len(held) == 400
    assert sum(held.values()) == made.entries
    for number in (0, 17, 399):
        holders = made.holders_of(number)
        assert len(set(holders)) == 5
        assert all(world.row(number) in made.rows_of(peer) for peer in holders)


def test_peers_have_files_alike() -> None:
    """As many each."""
    made = World(names=400, copies=5, peers=40)
    assert {len(list(made.rows_of(peer))) for peer in range(made.peers)} == {made.files_a_peer}


def test_a_world_that_does_not_come_out_even_is_refused() -> None:
    """Rather than rounded."""
    with pytest.raises(ValueError, match="blocks"):
        World(names=401, copies=5, peers=40)


@pytest.mark.parametrize("scale", SCALES.values(), ids=lambda scale: scale.name)
def test_every_scales_worlds_come_out_even(scale) -> None:  # type: ignore[no-untyped-def]
    """So that no run fails half way for want of arithmetic."""
    World(scale.lookup_names, scale.lookup_holders, scale.lookup_peers)
    World(scale.table_peers * scale.table_files // scale.table_copies, scale.table_copies, scale.table_peers)
    for peers, files in ((scale.emptied_peers, scale.emptied_files), (scale.dying_peers, scale.dying_files)):
        World(peers * files // 10, 10, peers)


def test_names_are_names() -> None:
    """The registry takes them as they are."""
    for number in (0, 999, 1_000_000):
        assert parse_name(world.name(number)) == world.name(number)


def test_tables_encoded_beforehand_are_what_the_peer_holds() -> None:
    """Blocks put together by their bytes are read as one message with the rows of all."""
    made = World(names=400, copies=5, peers=40)
    tables = PreparedTables(made)
    steps = [push_step(pb.PushTableRequest.FromString(message)) for message in tables.messages(3, revision=7)]
    assert isinstance(steps[0], PushHeader)
    assert (steps[0].peer_id, steps[0].whole, steps[0].revision) == (world.peer_id(3), True, 7)
    rows = [row for step in steps if isinstance(step, RowBatch) for row in step.put]
    assert rows == list(made.rows_of(3))
    assert steps[-1] == PushEnd(len(rows), 0)
