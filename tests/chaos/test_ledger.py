"""The checks of the chaos runs find what they must find, and accept what is right."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.chaos.content import Content, digest_of, make_content
from tests.chaos.faults import Plan
from tests.chaos.leaks import Held, allowed, debris, excess_of
from tests.chaos.ledger import Ledger, difference
from tests.chaos.liveness import Liveness
from tests.chaos.versions import Copy


@pytest.fixture
def ledger() -> Ledger:
    """Leases of five seconds, one of slack, ten for recovery."""
    return Ledger(Liveness(lease_seconds=5.0, slack_seconds=1.0, recovery_seconds=10.0, registry_count=2))


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
    ledger.publishing("a", content, now=0.0)
    ledger.check_bytes("fetched", "a", content.digest)
    assert not ledger.violations
    ledger.check_bytes("fetched", "b", content.digest)
    ledger.check_bytes("fetched", "a", b"x")
    ledger.check_bytes("fetched", "a", None)
    assert len(ledger.violations) == 3


def test_lost_and_changed_files_are_seen(ledger: Ledger, content: Content) -> None:
    """What was placed and not removed must be there, as it was."""
    for name in ("kept", "lost", "changed", "deleted"):
        ledger.publishing(name, content, now=0.0)
        ledger.placed("p1", name, content.digest)
    other = make_content("other", 10)
    ledger.publishing("changed", other, now=1.0)
    ledger.removed("p1", "deleted")
    ledger.check_disk("p1", {"kept": content.digest, "changed": other.digest})
    assert ledger.violations == ["p1 has lost lost", "p1's changed has changed by itself"]


def test_what_is_uploaded_to_may_change_until_all_has_settled(ledger: Ledger, content: Content) -> None:
    """On any peer, since uploads choose their peers."""
    ledger.publishing("a", content, now=0.0)
    ledger.placed("p1", "a", content.digest)
    ledger.uploading("a")
    ledger.placed("p2", "a", content.digest)
    ledger.check_disk("p1", {})
    ledger.check_disk("p2", {})
    assert not ledger.violations
    ledger.settled(now=1.0)
    ledger.placed("p1", "a", content.digest)
    ledger.check_disk("p1", {})
    assert ledger.violations == ["p1 has lost a"]


def test_a_peer_may_be_named_for_as_long_as_its_lease(ledger: Ledger) -> None:
    """And the slack; not after, unless it is reachable again."""
    ledger.liveness.silence("p1", now=100.0)
    ledger.check_answer("the list", ["p1", "p2"], asked_at=106.0)
    assert not ledger.violations
    ledger.check_answer("the list", ["p1", "p2"], asked_at=106.1)
    assert ledger.violations == ["the list names p1, silent for 6.1 s"]
    ledger.liveness.revert("p1")
    ledger.check_answer("the list", ["p1"], asked_at=200.0)
    assert len(ledger.violations) == 1


def test_a_peer_that_lives_is_listed(ledger: Ledger) -> None:
    """Soon, whichever registry is away; while all are, or the store, it need not be."""
    live = ledger.liveness

    def asked(at: float, *listed: str) -> int:
        ledger.check_peers("locator-1", listed, ["p1"], asked_at=at)
        return len(ledger.violations)

    live.begin("registry-1", "registry", now=0.0)
    assert asked(1.0) == asked(11.0) == 0
    assert asked(11.1) == 1, "one registry worked"
    assert asked(12.0, "p1") == 1
    live.begin("registry-2", "registry", now=13.0)
    assert asked(13.0) == asked(50.0) == 1, "none worked"
    live.end("registry-2", "registry", now=60.0)
    live.begin("store", "store", now=61.0)
    live.end("store", "store", now=70.0)
    assert asked(70.0) == asked(80.0) == 1
    assert asked(80.1) == 2
    live.begin("p1", "peer", now=81.0)
    assert asked(100.0) == 2
    live.end("p1", "peer", now=110.0)
    assert asked(111.0) == 2
    live.begin("store", "store", now=112.0)
    live.end("store", "store", now=120.0)
    assert asked(130.0) == 2, "nobody was asked during the fault"
    assert asked(130.1) == 3
    assert live.longest_absence == pytest.approx(10.1)


class Puts:
    """Two versions of a name, the second put after the first, and a peer that has the second."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.old, self.new = make_content("old", 10), make_content("new", 10)
        for content, at in ((self.old, 0.0), (self.new, 10.0)):
            ledger.publishing("a", content, at)
            ledger.versions.complete("a", content.digest, at, at + 5.0)
        self.copies = {"p1": Copy(self.new.digest, placed_at=12.0)}

    def complaints(self, delivered: Content, asked_at: float) -> int:
        """How many, when a get that began then delivers this."""
        self.ledger.violations.clear()
        self.ledger.check_version("fetched", "a", delivered.digest, asked_at, self.copies)
        return len(self.ledger.violations)


@pytest.fixture
def puts(ledger: Ledger) -> Puts:
    """See the class."""
    return Puts(ledger)


def test_an_old_version_is_seen(puts: Puts) -> None:
    """Once the newer one has been there for a while, on a peer without faults."""
    assert puts.complaints(puts.new, asked_at=11.0) == 0
    assert puts.complaints(puts.old, asked_at=100.0) == 1
    assert puts.complaints(puts.old, asked_at=22.0) == 0, "the peer has had it for 10 s only"
    puts.copies.clear()
    assert puts.complaints(puts.old, asked_at=100.0) == 0, "nobody has the newer one"


@pytest.mark.parametrize("part", [("p1", "peer"), ("store", "store"), ("registry-1", "registry")])
def test_a_fault_excuses_an_old_version(puts: Puts, part: tuple[str, str]) -> None:
    """Until peers have had the time to announce all again."""
    live = puts.ledger.liveness
    live.begin(*part, now=90.0)
    assert puts.complaints(puts.old, asked_at=95.0) == 0
    live.end(*part, now=91.0)
    assert puts.complaints(puts.old, asked_at=100.0) == 0
    assert puts.complaints(puts.old, asked_at=102.0) == 1


def test_publications_that_overlap_have_no_order(puts: Puts) -> None:
    """Such as those of files that appeared in folders since all had settled."""
    one, other = make_content("one", 10), make_content("other", 10)
    puts.ledger.publishing("a", one, now=20.0)
    puts.ledger.publishing("a", other, now=30.0)
    puts.copies["p1"] = Copy(other.digest, placed_at=30.0)
    assert puts.complaints(one, asked_at=100.0) == 0
    assert puts.complaints(puts.old, asked_at=100.0) == 0, "the other one may not be announced yet"
    puts.ledger.settled(now=110.0)
    assert puts.complaints(one, asked_at=200.0) == 0
    assert puts.complaints(puts.old, asked_at=200.0) == 1


def test_an_old_content_that_is_put_again_is_the_newest(puts: Puts) -> None:
    """Once the command says so: if it fails, it may be the newest or what it was."""
    puts.ledger.publishing("a", puts.old, now=50.0)
    assert puts.complaints(puts.old, asked_at=200.0) == puts.complaints(puts.new, asked_at=200.0) == 0
    puts.copies = {"p1": Copy(puts.old.digest, placed_at=12.0), "p2": Copy(puts.old.digest, placed_at=51.0)}
    puts.ledger.versions.complete("a", puts.old.digest, started=50.0, now=55.0)
    assert puts.complaints(puts.new, asked_at=200.0) == 1
    del puts.copies["p2"]
    assert puts.complaints(puts.new, asked_at=200.0) == 0, "that copy is older than the publication"


def test_a_lost_index_demotes_and_never_promotes(puts: Puts) -> None:
    """What its peer had may count as older; what others have stays newer than that."""
    puts.ledger.versions.forget([("a", puts.old.digest)])
    assert puts.complaints(puts.old, asked_at=100.0) == 1
    puts.ledger.versions.forget([("a", puts.new.digest)])
    assert puts.complaints(puts.old, asked_at=100.0) == 0


def test_the_default_version_is_the_newest_that_a_peer_has(puts: Puts) -> None:
    """Whole; where nobody has, it may be any."""
    wrong = puts.ledger.wrong_default
    assert wrong("a", puts.new.content_id, puts.copies) == ""
    assert "of which no peer has all" in wrong("a", puts.old.content_id, puts.copies)
    puts.copies["p2"] = Copy(puts.old.digest, placed_at=1.0)
    assert wrong("a", puts.old.content_id, puts.copies) == "the default of a is old, not new on p1"
    assert wrong("a", puts.old.content_id, {}) == ""
    latest = make_content("latest", 10)
    puts.ledger.publishing("a", latest, now=20.0)
    puts.copies["p3"] = Copy(latest.digest, placed_at=20.0)
    assert wrong("a", puts.new.content_id, puts.copies) == "the default of a is new, not latest on p3", (
        "not settled yet"
    )


def test_a_directory_is_compared_with_the_disks(ledger: Ledger, content: Content) -> None:
    """Missing and untrue holdings are reported apart."""
    ledger.publishing("a", content, now=0.0)
    union = ledger.union({"p1": {"a": Copy(content.digest, 1.0)}, "p2": {"a": Copy(b"half written", 1.0)}})
    assert union == {("a", content.content_id, "p1")}
    assert difference(union, union) == ""
    assert difference(union, set()) == "missing a on p1"
    assert difference(set(), union) == "listed but not held: a on p1"


TARGETS = {"peer": [f"p{number}" for number in range(10)], "registry": ["r1", "r2"], "locator": ["l1"], "store": ["s"]}


def test_a_seed_gives_the_same_faults() -> None:
    """A run can be repeated as far as the faults go."""
    one, again, other = (Plan(seed, 0, TARGETS, 5.0) for seed in ("1", "1", "2"))
    faults = [one.draw() for _ in range(300)]
    assert faults == [again.draw() for _ in range(300)]
    assert faults != [other.draw() for _ in range(300)]
    assert {fault.target for fault in faults} == {name for names in TARGETS.values() for name in names}


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
    for name in ("lock", "lease", "integrity.json", "index.sqlite", "index.sqlite-wal", "odd.tmp"):
        (tmp_path / ".minga" / name).touch()
    assert sorted(debris([tmp_path])) == [
        f"{tmp_path}/.minga/odd.tmp is no known file",
        f"{parts}/two.held belongs to no part",
    ]


def test_a_plan_has_every_kind_of_fault() -> None:
    """Partitions name the peers that they separate; what the store loses in one round, indexes lose in another."""
    even, odd = ([plan.draw() for _ in range(500)] for plan in (Plan("7", number, TARGETS, 5.0) for number in (0, 1)))
    kinds = {fault.kind for fault in even}
    assert kinds == {"killed", "power_lost", "paused", "cut", "full", "restarted", "partitioned", "emptied"}
    assert {fault.kind for fault in odd} == kinds - {"emptied"} | {"index_lost"}
    assert all(len(fault.others) == (5 if fault.kind == "partitioned" else 0) for fault in even)
    assert not any(fault.target == "s" and fault.kind == "killed" for fault in odd)
