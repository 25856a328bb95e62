"""Values in Redis that no registry has written: what is damaged is left out, and everything else is answered."""

import pytest

from minga_core.ids import PeerId
from minga_core.names import Name
from minga_directory import keys
from minga_directory.codec import row_field, row_value
from tests.conformance.harness import Harness, content, peer_ids, row

pytestmark = pytest.mark.redis

FIELD, VALUE = row_field(row("x").key), row_value(row("x"))
DAMAGE = {
    "a row cut short": (keys.table, FIELD, VALUE[:5]),
    "a row of an unknown state": (keys.table, FIELD, VALUE[:-1] + b"\x09"),
    "an address that is no text": (keys.peer, "address", b"\xff"),
    "a zone with a separator": (keys.peer, "zone", b"r\0r"),
}


async def write(directory: Harness, *words: str | bytes) -> None:
    """Sets a field of a hash, past the directory."""
    await directory.store.one("HSET", *words)


@pytest.mark.parametrize("damage", DAMAGE)
async def test_a_damaged_holder_hides_no_other_one(on_redis: Harness, damage: str) -> None:
    """By name, among many names and by content. Holders with the same row are found together, yet each by itself."""
    for peer_id in "abc":
        await on_redis.register(peer_id)
        await on_redis.push(peer_id, [row("x")])
    key, field, value = DAMAGE[damage]
    await write(on_redis, key(PeerId("b")), field, value)
    (version,) = await on_redis.reader.find(Name("x"))
    (newest,) = await on_redis.reader.find_newest([Name("x")])
    of_content, _ = await on_redis.reader.find_content(content("v1"))
    assert newest is not None
    assert of_content is not None
    assert [peer_ids(one) for one in (version, newest, of_content)] == [["a", "c"]] * 3


async def test_a_name_whose_holders_are_all_damaged_is_not_found(on_redis: Harness) -> None:
    """No version without holders is answered."""
    await on_redis.register("a")
    await on_redis.push("a", [row("x")])
    await write(on_redis, keys.peer(PeerId("a")), "address", b"\xff")
    assert not await on_redis.reader.find(Name("x"))


async def test_a_lease_that_an_older_registry_made_is_listed(on_redis: Harness) -> None:
    """It has no URL of a gateway, and lives on while its peer renews it."""
    await on_redis.register("a")
    await on_redis.store.one("HDEL", keys.peer(PeerId("a")), "gateway")
    assert (await on_redis.reader.get_peer(PeerId("a"))).info.gateway_url == ""
