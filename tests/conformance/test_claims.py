"""Who fetches a file from its origin: one peer at a time, as long as it says so or until it is found dead."""

import asyncio

import pytest

from minga_core.errors import LeaseSupersededError, RegisterAgainError
from minga_core.names import Name
from minga_core.records import FetchClaim, Fetcher
from minga_directory import keys
from minga_directory.claims import CLAIM_TTL
from tests.conformance.harness import SHORT, Harness, eventually, lease

FILE, OTHER = Name("origins/sha256/aa"), Name("origins/sha256/bb")
MINE, YOURS, LATER = bytes(32), bytes(range(32)), b"\xff" * 32


async def claim(
    directory: Harness,
    peer_id: str,
    transfer_id: bytes,
    *,
    name: Name = FILE,
    instead_of: bytes = b"",
    generation: int = 1,
) -> Fetcher:
    """Who fetches after that claim."""
    wanted = FetchClaim(name, transfer_id, 8080, instead_of)
    found = await directory.writer.claim_fetch(lease(peer_id, generation), wanted)
    assert found is not None
    return found


async def test_the_first_fetches_and_all_others_are_told_who_it_is(directory: Harness) -> None:
    """Its address is that of its lease; another name is another claim."""
    for peer_id in "abc":
        await directory.register(peer_id)
    first = await claim(directory, "a", MINE)
    assert first == Fetcher(lease("a").peer_id, first.address, 8080, MINE)
    assert first.address == "a:2"
    found = await asyncio.gather(*(claim(directory, each, YOURS) for each in "bcbc"))
    assert found == [first] * 4
    assert await claim(directory, "a", MINE) == first
    assert (await claim(directory, "b", YOURS, name=OTHER)).peer_id == "b"


async def test_of_many_at_once_one_fetches(directory: Harness) -> None:
    """Whoever they are."""
    peers = [f"p{number}" for number in range(8)]
    for peer_id in peers:
        await directory.register(peer_id)
    ids = {peer_id: bytes([number]) * 32 for number, peer_id in enumerate(peers)}
    found = await asyncio.gather(*(claim(directory, each, ids[each]) for each in peers))
    assert len(set(found)) == 1


async def test_a_dead_fetcher_is_replaced_once(directory: Harness) -> None:
    """By the first that names its transfer; who names it later learns of the new one."""
    for peer_id in "abc":
        await directory.register(peer_id)
    await claim(directory, "a", MINE)
    assert (await claim(directory, "b", YOURS, instead_of=LATER)).peer_id == "a"
    assert (await claim(directory, "b", YOURS, instead_of=MINE)).peer_id == "b"
    assert (await claim(directory, "c", LATER, instead_of=MINE)).peer_id == "b"
    assert (await claim(directory, "a", MINE)).peer_id == "b"


async def test_nobody_takes_a_claim_over_by_its_transfer(directory: Harness) -> None:
    """Followers know its id: it is no secret, and gives them nothing; nor can they give it up for its owner."""
    for peer_id in "ab":
        await directory.register(peer_id)
    await claim(directory, "a", MINE)
    assert (await claim(directory, "b", MINE)).peer_id == "a"
    release = FetchClaim(FILE, MINE, 0, release=True)
    assert await directory.writer.claim_fetch(lease("b"), release) is None
    assert (await claim(directory, "b", YOURS)).peer_id == "a"
    assert await directory.writer.claim_fetch(lease("a"), release) is None
    assert (await claim(directory, "b", YOURS)).peer_id == "b"


async def test_a_claim_ends_by_itself(directory: Harness) -> None:
    """So that nobody waits for a peer that died alone."""
    for peer_id in "ab":
        await directory.register(peer_id)
    await claim(directory, "a", MINE)
    if directory.clock:
        directory.clock.advance(CLAIM_TTL.total_seconds() + 0.001)
    else:
        assert 0 < await directory.store.one("PTTL", keys.claim(FILE)) <= CLAIM_TTL.total_seconds() * 1000
        await directory.store.one("PEXPIRE", keys.claim(FILE), 1)

    async def taken() -> bool:
        return (await claim(directory, "b", YOURS)).peer_id == "b"

    await eventually(taken)


async def test_only_who_has_a_lease_claims(directory: Harness) -> None:
    """Of that generation, and as long as it lives."""
    with pytest.raises(RegisterAgainError):
        await claim(directory, "a", MINE)
    await directory.register("a", 2, ttl=SHORT)
    with pytest.raises(LeaseSupersededError):
        await claim(directory, "a", MINE)
    await directory.let_end("a")
    with pytest.raises(RegisterAgainError):
        await claim(directory, "a", MINE, generation=2)
