"""Keys: every kind is documented, and what shares a script shares a slot."""

import inspect
import re
from pathlib import Path

from minga_core.ids import ContentId, PeerId
from minga_core.names import Name
from minga_directory import keys
from minga_directory.codec import name_hash

A = PeerId("a")
CONTENT = ContentId(b"\x15" + bytes(31))
MADE = {
    "peer": keys.peer(A),
    "table": keys.table(A),
    "unlist": keys.unlist(A, 7),
    "removes": keys.removes(A, 7),
    "swap": keys.swap(A, 7),
    "holders": keys.holders(CONTENT),
    "called": keys.called(CONTENT),
    "name": keys.name(Name("x")),
    "names": keys.names(3),
    "peers": keys.PEERS,
    "leases": keys.LEASES,
    "unlisting": keys.UNLISTING,
    "sequence": keys.SEQUENCE,
    "losses": keys.LOSSES,
    "begun": keys.BEGUN,
    "young": keys.YOUNG,
    "filling": keys.FILLING,
    "mark": keys.marks()[0],
    "placement-cursor": keys.CURSOR,
}


def tag(key: str) -> str:
    """What Redis Cluster hashes of a key: the first {…} that is not empty."""
    found = re.search(r"\{([^}]+)\}", key)
    assert found, key
    return found[1]


def test_every_key_is_in_the_catalogue() -> None:
    """One entry for each kind that the module makes, and none for kinds that it does not."""
    documented = {pattern.pattern.partition(":")[0] for pattern in keys.CATALOGUE}
    assert documented == set(MADE)
    assert {key.removeprefix(keys.PREFIX).partition(":")[0] for key in MADE.values()} == documented


def test_keys_of_one_script_share_a_slot() -> None:
    """All of a peer, all indexes, a content's two, a name and its shard."""
    assert {tag(MADE[kind]) for kind in ("peer", "table", "unlist", "removes", "swap")} == {"a"}
    indexes = ("peers", "leases", "unlisting", "sequence", "begun", "young", "filling")
    assert len({tag(MADE[kind]) for kind in indexes}) == 1
    assert tag(MADE["holders"]) == tag(MADE["called"]) == "c5"
    assert tag(keys.name(Name("x"))) == tag(keys.names(keys.shard_of(Name("x"))))


def test_braces_in_a_name_do_not_move_it_to_another_slot() -> None:
    """The slot is of the first tag, which is ours."""
    name = Name("}{a}{b")
    assert tag(keys.name(name)) == tag(keys.names(keys.shard_of(name)))


def test_names_spread_over_all_shards() -> None:
    """Slots share the load."""
    assert {keys.shard_of(Name(f"file{number}")) for number in range(1000)} == set(range(keys.NAME_SHARDS))


def test_the_keys_of_a_rows_hints_are_those_of_their_functions() -> None:
    """Made together, since there are millions of them."""
    name = Name("ö/x")
    made = keys.hints(CONTENT.raw, name_hash(name), name)
    assert made == (keys.holders(CONTENT), keys.called(CONTENT), keys.name(name))
    assert keys.name(name, name_hash(name)) == keys.name(name)


def test_an_unlist_key_is_taken_apart_again() -> None:
    """Peer ids may have dots and dashes."""
    assert keys.parts_of_unlist(keys.unlist(PeerId("a.b-1_c"), 1_700_000_000_000_000)) == (
        "a.b-1_c",
        1_700_000_000_000_000,
    )


def test_nobody_else_spells_a_key() -> None:
    """The prefix is written once."""
    package = Path(inspect.getfile(keys)).parent
    spelled = [
        path.name for path in package.rglob("*") if path.suffix in (".py", ".lua") and "minga:v1" in path.read_text()
    ]
    assert spelled == ["keys.py"]


def test_the_reference_is_the_catalogue() -> None:
    """docs/redis.md is what the code says."""
    reference = Path(__file__).parents[3] / "docs" / "redis.md"
    assert reference.read_text() == keys.catalogue_markdown()
