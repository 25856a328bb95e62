"""What the first number of a script's answer stands for, as errors."""

from typing import Any

from minga_core.errors import (
    LeaseSupersededError,
    PeerIdTakenError,
    RegisterAgainError,
    StoreUnavailableError,
    TableRevisionMismatchError,
)
from minga_core.ids import PeerId

SUPERSEDED, OK, NO_LEASE, MISMATCH, LATE = range(5)


def check_reply(peer_id: PeerId, answer: Any) -> None:
    """Raises the error that a script answered, if it did not succeed."""
    match answer[0]:
        case 0:
            raise superseded(peer_id, answer)
        case 2:
            raise RegisterAgainError(f"{peer_id} has no lease of that generation")
        case 3:
            raise TableRevisionMismatchError(f"the stored table of {peer_id} is not the one that was changed")
        case 4:
            # Past its deadline: its tombstones may be collected already.
            raise StoreUnavailableError("Redis took too long; nothing was changed")
        case 5:
            raise PeerIdTakenError(
                f"another peer is {peer_id}, at {bytes(answer[1]).decode()}",
                hint="give each peer an id of its own with MINGA_PEER_ID",
            )


def superseded(peer_id: PeerId, answer: Any) -> LeaseSupersededError:
    """The error for an answer that names the owner of the lease."""
    owner = bytes(answer[1]).decode()
    return LeaseSupersededError(
        f"another process is {peer_id} now, at {owner}",
        owner_address=owner,
        hint="give each peer an id of its own with MINGA_PEER_ID",
    )
