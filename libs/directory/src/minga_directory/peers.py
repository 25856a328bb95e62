"""Read the records of living peers."""

from collections.abc import Sequence
from datetime import timedelta

from minga_core.errors import MingaError
from minga_core.ids import Address, Generation, PeerId
from minga_core.records import PeerInfo
from minga_directory import keys
from minga_directory.directory import PeerRecord
from minga_directory.store import Command, Store

_FIELDS = ("address", "generation", "zone", "capacity", "free", "serves", "files", "software", "gateway")


async def living_peers(store: Store, ids: Sequence[PeerId]) -> list[PeerRecord]:
    """The records of those of the peers that live. Raises what redis-py raises."""
    commands: list[Command] = []
    for peer_id in ids:
        commands += [("HMGET", keys.peer(peer_id), *_FIELDS), ("PTTL", keys.peer(peer_id))]
    answers = await store.run(commands)
    found = zip(ids, answers[::2], answers[1::2], strict=True)
    records = (_record(peer_id, fields, left) for peer_id, fields, left in found)
    return [record for record in records if record is not None]


def _record(peer_id: PeerId, fields: Sequence[bytes | None], left_millis: int) -> PeerRecord | None:
    """None when there is no lease, or what is stored is damaged."""
    # Leases of registries that knew no `gateway` live on.
    if left_millis < 0 or None in fields[:-1]:
        return None
    try:
        address, generation, zone, capacity, free, serves, files, software, gateway = (
            (field or b"").decode() for field in fields
        )
        info = PeerInfo(
            peer_id, Generation(int(generation)), Address(address), zone, int(capacity), int(free), software, gateway
        )
        left = timedelta(milliseconds=left_millis)
        return PeerRecord(info, int(files), int(serves), left)
    except (ValueError, MingaError):
        return None
