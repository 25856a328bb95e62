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


def tag(key: str) -> str:
    """What Redis Cluster hashes of a key: the first {…} that is not empty."""
    found = re.search(r"\{([^}]+)\}", key)
    assert found, key
    return found[1]


def test_every_key_is_in_the_catalog_and_docs_redis_md_is_the_catalog() -> None:
    """One entry for each kind that the module makes, and none for kinds that it does not."""
    functions = [keys.peer(A), keys.table(A), keys.tombstones(A, 7), keys.removals(A, 7), keys.swap(A, 7)]
    functions += [keys.holders(CONTENT), keys.content_names(CONTENT), keys.name(Name("x")), keys.names(3)]
    constants = [value for value in vars(keys).values() if isinstance(value, str) and value.startswith(keys.PREFIX)]
    made = {key.removeprefix(keys.PREFIX).partition(":")[0] for key in [*functions, *constants, *keys.incarnations()]}
    assert {pattern.pattern.partition(":")[0] for pattern in keys.CATALOG} == made - {""}
    assert (Path(__file__).parents[3] / "docs" / "redis.md").read_text() == keys.catalog_markdown()


def test_keys_of_one_script_share_a_slot() -> None:
    """All of a peer, all indexes, a content's two, a name and its shard; braces in a name change nothing."""
    of_a_peer = (keys.peer(A), keys.table(A), keys.tombstones(A, 7), keys.removals(A, 7), keys.swap(A, 7))
    assert set(map(tag, of_a_peer)) == {"a"}
    assert tag(keys.holders(CONTENT)) == tag(keys.content_names(CONTENT)) == "c5"
    for name in (Name("x"), Name("}{a}{b")):
        assert tag(keys.name(name)) == tag(keys.names(keys.shard_of(name)))


def test_the_keys_of_a_row_made_together_are_those_of_their_functions() -> None:
    """Made together, since there are millions of them."""
    name = Name("ö/x")
    made = keys.entries(CONTENT.raw, name_hash(name), name)
    assert made == (keys.holders(CONTENT), keys.content_names(CONTENT), keys.name(name))


def test_a_tombstones_key_is_parsed_again() -> None:
    """Peer ids may have dots and dashes."""
    key = keys.tombstones(PeerId("a.b-1_c"), 1_700_000_000_000_000)
    assert keys.parts_of_tombstones(key) == ("a.b-1_c", 1_700_000_000_000_000)


def test_no_other_module_spells_a_key() -> None:
    """The prefix is written once."""
    package = Path(inspect.getfile(keys)).parent
    spelled = [
        path.name for path in package.rglob("*") if path.suffix in (".py", ".lua") and "minga:v1" in path.read_text()
    ]
    assert spelled == ["keys.py"]
