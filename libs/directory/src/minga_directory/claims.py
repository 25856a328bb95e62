"""Who fetches a file from its origin for all: one key a name, for some seconds. Nothing else depends on it."""

from datetime import timedelta

from minga_core.errors import RegisterAgainError
from minga_core.ids import Address, PeerId
from minga_core.records import FetchClaim, Fetcher, Lease
from minga_directory import keys
from minga_directory.leases import check_lease, millis
from minga_directory.replies import check_reply
from minga_directory.store import Store

CLAIM_TTL = timedelta(seconds=5)
"""How long others wait for a fetcher that has died without any of them noticing."""


async def claim_fetch(store: Store, lease: Lease, claim: FetchClaim) -> Fetcher | None:
    """See DirectoryWriter. Raises what redis-py raises."""
    answer, address = await store.run([check_lease(lease), ("HGET", keys.peer(lease.peer_id), "address")])
    check_reply(lease.peer_id, answer)
    if address is None:
        raise RegisterAgainError(f"the lease of {lease.peer_id} has just ended")
    found = await store.script(
        "claim",
        [keys.claim(claim.name)],
        [
            claim.transfer_id,
            lease.peer_id,
            address,
            claim.http_port,
            millis(CLAIM_TTL),
            claim.instead_of,
            int(claim.release),
        ],
    )
    if not found:
        return None
    transfer_id, peer_id, address, port = map(bytes, found)
    return Fetcher(PeerId(peer_id.decode()), Address(address.decode()), int(port), transfer_id)
