"""The checks of the chaos runs find what they must find, and accept what is right."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.chaos.content import Content, digest_of, make_content
from tests.chaos.faults import plan
from tests.chaos.leaks import Held, allowed, debris, excess_of
from tests.chaos.ledger import Ledger, difference


@pytest.fixture
def ledger() -> Ledger:
    """Leases of five seconds, and one of slack."""
    return Ledger(lease_seconds=5.0, slack_seconds=1.0)


@pytest.fixture
def content() -> Content:
    """Something that was shared."""
    return make_content("label", 300_000)


def test_contents_are_functions_of_their_label(content: Content, tmp_path: Path) -> None:
    """So that bytes can be checked without being kept."""
    assert make_content("label", 300_000) == content
    assert make_content("other", 300_000).content_id != content.content_id
    path = tmp_path / "file"
    path.write_bytes(content.data())
    assert digest_of(path) == content.digest
    assert digest_of(tmp_path / "nothing") is None


def test_wrong_bytes_are_seen(ledger: Ledger, content: Content) -> None:
    """Bytes are right under the names that they were shared under, and nowhere else."""
    ledger.published("a", content)
    ledger.check_bytes("fetched", "a", content.digest)
    assert not ledger.violations
    ledger.check_bytes("fetched", "b", content.digest)
    ledger.check_bytes("fetched", "a", b"x")
    ledger.check_bytes("fetched", "a", None)
    assert len(ledger.violations) == 3


def test_lost_and_changed_files_are_seen(ledger: Ledger, content: Content) -> None:
    """What was placed and not removed must be there, as it was."""
    for name in ("kept", "lost", "changed", "deleted"):
        ledger.published(name, content)
        ledger.placed("p1", name, content.digest)
    other = make_content("other", 10)
    ledger.published("changed", other)
    ledger.removed("p1", "deleted")
    ledger.check_disk("p1", {"kept": content.digest, "changed": other.digest})
    assert ledger.violations == ["p1 has lost lost", "p1's changed has changed by itself"]


def test_a_peer_may_be_named_for_as_long_as_its_lease(ledger: Ledger) -> None:
    """And the slack; not after, unless it is reachable again."""
    ledger.silenced("p1", now=100.0)
    ledger.silenced("p1", now=104.0)
    ledger.check_answer("the list", ["p1", "p2"], asked_at=106.0)
    assert not ledger.violations
    ledger.check_answer("the list", ["p1", "p2"], asked_at=106.1)
    assert ledger.violations == ["the list names p1, silent for 6.1 s"]
    ledger.reachable_again("p1")
    ledger.check_answer("the list", ["p1"], asked_at=200.0)
    assert len(ledger.violations) == 1


def test_a_directory_is_compared_with_the_disks(ledger: Ledger, content: Content) -> None:
    """Missing and untrue holdings are reported apart."""
    ledger.published("a", content)
    union = ledger.union({"p1": {"a": content.digest}, "p2": {"a": b"half written"}})
    assert union == {("a", content.content_id, "p1")}
    assert difference(union, union) == ""
    assert difference(union, set()) == "missing a on p1"
    assert difference(set(), union) == "listed but not held: a on p1"


def test_a_seed_gives_the_same_faults() -> None:
    """A run can be repeated as far as the faults go."""
    peers = ["p1", "p2", "p3"]
    one, again, other = (plan(seed, peers, 5.0) for seed in ("1", "1", "2"))
    faults = [one.draw() for _ in range(50)]
    assert faults == [again.draw() for _ in range(50)]
    assert faults != [other.draw() for _ in range(50)]
    assert {fault.target for fault in faults} >= {"p1", "p2", "p3", "store"}


def test_a_process_that_keeps_more_than_it_needs_is_seen() -> None:
    """Each of what it may keep by itself."""
    first = Held(20, 5, 0, 10, 15, 80)
    most = allowed(20, at_the_end=True)
    full = Held(20 + most.sockets, 5 + most.open_files, 0, 10 + most.threads, 15 + most.tasks, 80 + most.memory_mib)
    assert not list(excess_of("p01", full, first, most))
    over = replace(full, sockets=full.sockets + 1, deleted_files=1, tasks=full.tasks + 1)
    assert list(excess_of("p01", over, first, most)) == [
        "p01 has 101 sockets, at first it was 20",
        "p01 has 1 deleted files, at first it was 0",
        "p01 has 96 tasks, at first it was 15",
    ]


def test_files_that_belong_to_nothing_are_seen(tmp_path: Path) -> None:
    """A part that may be resumed is none of them."""
    parts = tmp_path / ".minga" / "parts"
    parts.mkdir(parents=True)
    for name in ("one.data", "one.meta", "one.held", "one.held.new", "two.held"):
        (parts / name).touch()
    for name in ("lock", "index.sqlite", "index.sqlite-wal", "odd.tmp"):
        (tmp_path / ".minga" / name).touch()
    assert sorted(debris([tmp_path])) == [
        f"{tmp_path}/.minga/odd.tmp is no known file",
        f"{parts}/two.held belongs to no part",
    ]


def test_the_plan_has_every_kind_of_fault() -> None:
    """Partitions name the peers that they separate."""
    faults = plan("7", [f"p{number}" for number in range(10)], 5.0)
    drawn = [faults.draw() for _ in range(500)]
    assert {fault.kind for fault in drawn} == {"killed", "paused", "cut", "full", "restarted", "partitioned", "emptied"}
    assert all(len(fault.others) == (5 if fault.kind == "partitioned" else 0) for fault in drawn)
