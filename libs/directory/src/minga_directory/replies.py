"""What the first number of a script's answer stands for, as errors."""

from enum import IntEnum
from typing import Any

from minga_core.errors import (
    LeaseSupersededError,
    PeerIdTakenError,
    RegisterAgainError,
    StoreUnavailableError,
    TableRevisionMismatchError,
)
from minga_core.ids import PeerId


class Reply(IntEnum):
    """The first number of a script's answer."""

    SUPERSEDED = 0
    """A later start of that peer has the lease; its address follows."""
    OK = 1
    NO_LEASE = 2
    MISMATCH = 3
    """The table has another revision than the one that was changed, or has not all that was staged."""
    LATE = 4
    """Past the deadline of the write; nothing was changed."""
    TAKEN = 5
    """The lease of that id has another lease token: another peer has it. Its address follows."""


def check_reply(peer_id: PeerId, answer: Any) -> None:
    """Raises the error that a script answered, if it did not succeed."""
    match answer[0]:
        case Reply.SUPERSEDED:
            raise superseded(peer_id, answer)
        case Reply.NO_LEASE:
            raise RegisterAgainError(f"{peer_id} has no lease of that generation")
        case Reply.MISMATCH:
            raise TableRevisionMismatchError(f"the stored table of {peer_id} is not the one that was changed")
        case Reply.LATE:
            # Past its deadline: its tombstones may be collected already.
            raise StoreUnavailableError("Redis took too long; nothing was changed")
        case Reply.TAKEN:
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
