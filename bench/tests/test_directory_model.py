"""The model of the directory: its arithmetic where it can be done by hand, what must grow with what, and that the
simulation loses nobody."""

import re
from dataclasses import fields, replace
from math import inf, isfinite
from pathlib import Path

import pytest

from bench.directory.model import tables
from bench.directory.model.comeback import (
    Comeback,
    emptied,
    next_heartbeat,
    restarted,
    spread,
    unknown_share,
    wait_seconds,
)
from bench.directory.model.costs import UnitCosts
from bench.directory.model.departures import half_dies, reaped_a_second, registry_dies
from bench.directory.model.deployment import Deployment, cut_evenly, dealt, slot_of
from bench.directory.model.limits import limits
from bench.directory.model.page import filled
from bench.directory.model.steady import primary_bytes, rows_a_second, steady
from bench.directory.model.validation import CHECKS, THEN
from minga_core.ids import ContentId, PeerId
from minga_core.names import Name
from minga_directory import keys

FLEET = Deployment(1_000, 1_000, registries=2)
QUIET = replace(FLEET, restarts_a_week=0, changes_a_day=0, lookups_a_second=0)


def test_an_idle_fleet_costs_its_heartbeats_and_its_connections() -> None:
    """200 heartbeats a second, and 1,000 connections to each of two registries made anew every five minutes."""
    load = steady(QUIET, THEN)
    assert load.registry_cores == pytest.approx((200 * THEN.beat_registry + 2_000 / 300 * THEN.connection) / 1e6)
    assert load.store_cores == pytest.approx(200 * THEN.beat_store / 1e6)
    assert load.locator_cores == 0


def test_memory_of_the_store_is_shared_among_primaries() -> None:
    """An entry costs its row, its holder, and its part of the content and the name."""
    costs = replace(THEN, entry_table_bytes=100, entry_holder_bytes=50, content_bytes=300, name_bytes=200)
    assert costs.entry_bytes(10) == 200
    assert steady(FLEET, costs).store_bytes == 200e6
    spread_out = replace(FLEET, primaries=16)
    assert sum(primary_bytes(one, spread_out, costs) for one in spread_out.layout) == pytest.approx(200e6)
    assert steady(replace(spread_out, dealt=True), costs).hottest_bytes == pytest.approx(200e6 / 16)


def test_more_registries_do_not_save_each_from_a_connection_to_every_peer() -> None:
    """Unless peers are led to some of them."""
    many = replace(FLEET, registries=8)
    assert steady(many).registry_connections == steady(FLEET).registry_connections == 1_000
    assert steady(replace(many, connected_to=2)).registry_connections == 250


@pytest.mark.parametrize("figure", ["registry_cores", "store_cores", "store_bytes", "hottest_bytes", "registry_bytes"])
def test_twice_the_peers_take_more(figure: str) -> None:
    """Of everything."""
    assert getattr(steady(replace(FLEET, peers=2_000)), figure) > getattr(steady(FLEET), figure)


@pytest.mark.parametrize("primaries", [1, 3, 16, 40])
@pytest.mark.parametrize("layout", [cut_evenly, dealt])
def test_primaries_have_everything_between_them(primaries: int, layout) -> None:  # type: ignore[no-untyped-def]
    """Every shard, and `{all}` once."""
    found = layout(primaries)
    assert len(found) == primaries
    for share in ("contents", "names", "peers"):
        assert sum(getattr(one, share) for one in found) == pytest.approx(1)
    assert sum(one.has_all for one in found) == 1


def test_slots_are_those_of_the_directorys_keys() -> None:
    """The tag of a key decides; a Cluster takes what stands in braces."""
    content, name = ContentId(bytes([5]) * 32), Name("a")
    tag = re.compile(r"\{(.*)\}")
    for key in (keys.holders(content), keys.called(content)):
        assert tag.findall(key) == ["c5"]
    assert tag.findall(keys.name(name)) == [f"n{keys.shard_of(name)}"]
    assert tag.findall(keys.LEASES) == tag.findall(keys.INTENTS) == tag.findall(keys.TOKENS) == ["all"]
    assert tag.findall(keys.peer(PeerId("p"))) == tag.findall(keys.table(PeerId("p"))) == ["p"]
    # By CLUSTER KEYSLOT of a server.
    assert [slot_of("all"), slot_of("c0"), slot_of("n14")] == [3894, 10282, 25]


def test_shards_dealt_by_hand_let_a_cluster_take_more() -> None:
    """As cut evenly, half of sixteen primaries have no content."""
    even = Deployment(100_000, 10_000, registries=32, primaries=16)
    assert sum(one.contents == 0 for one in even.layout) == 8
    assert rows_a_second(replace(even, dealt=True), THEN) == pytest.approx(16e6 / THEN.row_store)
    assert rows_a_second(even, THEN) < 0.6 * rows_a_second(replace(even, dealt=True), THEN)


def test_every_wait_is_between_half_and_all_of_it() -> None:
    """And all who wait come again."""
    assert [wait_seconds(stage) for stage in (0, 1, 3, 9)] == [0.2, 0.4, 1.6, 3.0]
    for wait in (0.2, 1.6, 3.0):
        parts = list(spread(wait, 0.05))
        assert sum(share for _, share in parts) == pytest.approx(1)
        assert min(at for at, _ in parts) * 0.05 >= wait / 2 - 1e-9
        assert max(at for at, _ in parts) * 0.05 <= wait + 0.05 + 1e-9


def test_all_peers_have_beaten_after_the_longest_interval() -> None:
    """Seen from any instant; half of them after half of the usual one."""
    by = next_heartbeat(5.0)
    assert by(0) == 0
    assert by(2.5) == pytest.approx(0.5)
    assert by(4.0) == pytest.approx(0.8)
    assert by(6.0) == by(60.0) == pytest.approx(1.0)


def crowded() -> Comeback:
    """More peers than their one registry has room for: refusals, late calls, pushes that are given up."""
    return emptied(Deployment(9_000, 50_000, registries=1), THEN)


@pytest.mark.parametrize("run", [crowded(), emptied(FLEET, THEN), restarted(FLEET, 60.0, THEN)])
def test_nobody_is_lost_on_the_way(run: Comeback) -> None:
    """At every step all peers are somewhere, and nowhere are fewer than none."""
    for _ in range(1_000):
        run.step()
        states = run.states
        assert sum(states.values()) == pytest.approx(run.peers, rel=1e-6)
        assert min(states.values()) >= -1e-6
        assert states["pushing"] == pytest.approx(run.active, abs=1e-3)


def test_a_crowd_is_refused_comes_late_and_gives_up() -> None:
    """Else the test above would not have looked at any of it."""
    told = crowded().run(400.0)
    assert told.refused > 0
    assert told.late_calls > 0
    assert told.given_up > 0
    assert told.seconds == inf


def test_a_table_too_long_for_the_push_limit_is_never_told_until_fewer_push_at_once() -> None:
    """64 pushes of 100,000 rows take 205 s together; eight take 26."""
    wide = Deployment(200, 100_000, registries=1)
    assert emptied(wide, THEN).run(1_200.0).given_up > 0
    narrow = emptied(replace(wide, max_pushes=8), THEN).run(1_200.0)
    assert narrow.given_up == 0
    assert isfinite(narrow.seconds)


def test_what_is_told_again_costs_at_least_its_rows() -> None:
    """Registries work for as long as the rows take, and the store is never asked for more than it can."""
    told = emptied(FLEET, THEN).run()
    assert told.registry_cpu_seconds > 1e6 * 0.99 * THEN.row_registry / 1e6
    assert told.rows_a_second <= rows_a_second(FLEET, THEN) * 1.001
    assert told.seconds >= 0.99e6 / rows_a_second(FLEET, THEN)


def test_cheaper_rows_and_more_registries_bring_them_back_sooner() -> None:
    """Each by itself."""
    first = emptied(FLEET, THEN).run().seconds
    assert emptied(FLEET, replace(THEN, row_store=9.0)).run().seconds < first
    slow = replace(THEN, row_registry=100.0)
    assert emptied(replace(FLEET, registries=4), slow).run().seconds < emptied(FLEET, slow).run().seconds


def test_a_content_is_unknown_until_its_first_holder_has_told() -> None:
    """By chance."""
    assert unknown_share(0.0, 10) == 1
    assert unknown_share(0.5, 1) == 0.5
    assert unknown_share(0.5, 2) == 0.25


def test_a_dead_registrys_heartbeats_go_to_the_others() -> None:
    """Half as much again for each of two, until the third has its share."""
    found = registry_dies(replace(QUIET, registries=3), THEN)
    assert found.peak >= 1.5 * found.before
    assert 0 < found.shared_seconds <= 1.2 * QUIET.connection_age_seconds + 30


def test_the_dead_are_unlisted_after_their_leases_and_no_faster_than_can_be() -> None:
    """All rows of theirs."""
    found = half_dies(FLEET, THEN)
    assert found.rows == 500_000
    assert found.seconds > found.unnamed_seconds == 15
    assert found.rows_a_second <= reaped_a_second(FLEET, THEN) * 1.001
    assert found.seconds >= found.rows / reaped_a_second(FLEET, THEN)


def test_what_breaks_first_stands_first() -> None:
    """And moves with what it stands on."""
    found = limits(THEN)
    assert found == sorted(found, key=lambda limit: limit.peers)
    dearer = limits(replace(THEN, beat_registry=2 * THEN.beat_registry))
    (before,) = (limit for limit in found if limit.what.startswith("heartbeats"))
    (after,) = (limit for limit in dearer if limit.what.startswith("heartbeats"))
    assert after.peers == pytest.approx(before.peers / 2)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.what[:40])
def test_the_model_is_within_a_factor_of_two_of_what_was_measured(check) -> None:  # type: ignore[no-untyped-def]
    """Which the page promises."""
    assert 0.5 < check.modelled() / check.measured < 2


def test_every_cost_says_what_it_is_and_where_it_comes_from() -> None:
    """In the table that the program prints, too."""
    text = tables.unit_costs()
    for one in fields(UnitCosts):
        assert one.metadata["source"]
        assert f"| {one.metadata['what']} |" in text


def test_paragraphs_are_filled_and_tables_left_alone() -> None:
    """Points keep their indent."""
    table = "| a | b |\n| --- | --- |"
    text = filled(f"# T\n\none\ntwo\n\n- a point\n  goes on\n- another\n\n{table}\n")
    assert text == f"# T\n\none two\n\n- a point goes on\n- another\n\n{table}\n"


def test_links_of_the_page_lead_somewhere() -> None:
    """From docs/."""
    docs = Path(__file__).parents[2] / "docs"
    for target in re.findall(r"\]\(([^)#]+)\)", (docs / "scale.md").read_text()):
        assert (docs / target).exists()
