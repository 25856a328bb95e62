"""Keys: every kind is documented, and what shares a script shares a slot."""

import inspect
import re
from pathlib import Path

from minga_core.ids import ContentId, PeerId
from minga_core.names import Name
from minga_core.records import RowKey
from minga_directory import keys

A = PeerId("a")
CONTENT = ContentId(b"\x15" + bytes(31))
X = RowKey(Name("x"), CONTENT)


def tag(key: str | bytes) -> str:
    """What Redis Cluster hashes of a key: the first {…} that is not empty."""
    found = re.search(r"\{([^}]+)\}", text(key))
    assert found, key
    return found[1]


def text(key: str | bytes) -> str:
    """A key that may have a content id's bytes."""
    return key if isinstance(key, str) else key.decode(errors="replace")


def test_every_key_is_in_the_catalog_and_docs_redis_md_is_the_catalog() -> None:
    """One entry for each kind that the module makes, and none for kinds that it does not."""
    functions: list[str | bytes] = [
        keys.peer(A),
        keys.table(A),
        keys.tombstones(A, 7),
        keys.removals(A, 7),
        keys.swap(A, 7),
    ]
    functions += [keys.name(X.name), keys.names(3), keys.claim(X.name), keys.holders(X), keys.content_names(CONTENT)]
    constants = [value for value in vars(keys).values() if isinstance(value, str) and value.startswith(keys.PREFIX)]
    made = [text(key).removeprefix(keys.PREFIX) for key in [*functions, *constants, *keys.incarnations()]]
    assert {pattern.pattern.partition(":")[0] for pattern in keys.CATALOG} == {
        key.partition(":")[0] for key in made
    } - {""}
    assert (Path(__file__).parents[3] / "docs" / "redis.md").read_text() == keys.catalog_markdown()


def test_keys_of_one_script_share_a_slot() -> None:
    """All of a peer, all indexes, all of a name; braces in a name change nothing."""
    of_a_peer = (keys.peer(A), keys.table(A), keys.tombstones(A, 7), keys.removals(A, 7), keys.swap(A, 7))
    assert set(map(tag, of_a_peer)) == {"a"}
    assert tag(keys.content_names(CONTENT)) == "c5"
    for name in (Name("x"), Name("}{a}{b")):
        of_a_name = (keys.name(name), keys.claim(name), keys.names(keys.shard_of(name)))
        assert set(map(tag, of_a_name)) == {tag(keys.holders(RowKey(name, CONTENT)))}


def test_a_tombstones_key_is_parsed_again() -> None:
    """Peer ids may have dots and dashes."""
    key = keys.tombstones(PeerId("a.b-1_c"), 1_700_000_000_000_000)
    assert keys.parts_of_tombstones(key) == ("a.b-1_c", 1_700_000_000_000_000)


def test_no_other_module_spells_a_key() -> None:
    """The prefix is written once."""
    package = Path(inspect.getfile(keys)).parent
    spelled = [
        path.name for path in package.rglob("*") if path.suffix in (".py", ".lua") and keys.PREFIX in path.read_text()
    ]
    assert spelled == ["keys.py"]
