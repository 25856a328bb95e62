"""What makes a peer the same one after a restart, in its state folder: the lease token and the last generation.

The token is a secret: it is never logged.
"""

import logging
import os
import secrets
from pathlib import Path

from minga_core.errors import NoSpaceError, StorageError
from minga_core.ids import Generation, PeerId, latest_generation, new_generation
from minga_core.records import LEASE_TOKEN_BYTES, Lease
from minga_engine.parts.disk import storage_errors
from minga_engine.parts.files import fsync_folder
from minga_runtime.logs import log_event

log = logging.getLogger(__name__)

FILE_NAME = "lease"
_GENERATION_BYTES = 8


def new_lease(state_dir: Path, peer_id: PeerId, wall_seconds: float) -> tuple[Lease, str]:
    """What this start of a peer shows to the registry: the kept token, or a new one, and a generation after the last.

    And why that is not kept, in one line; empty when it is. The next start may then have another token, and waits
    until the lease of this one has ended. Blocking.
    """
    path = state_dir / FILE_NAME
    token, last = secrets.token_bytes(LEASE_TOKEN_BYTES), 0
    try:
        token, last = _read(path) or (token, last)
        lease = Lease(peer_id, _after(last, wall_seconds), token)
        _write(path, lease)
    except (NoSpaceError, StorageError) as error:
        return Lease(peer_id, _after(last, wall_seconds), token), str(error)
    return lease, ""


def _after(last: int, wall_seconds: float) -> Generation:
    """A generation after the last one, also when the clock was put back; not when it was wrong by more than is believed
    before."""
    generation = new_generation(wall_seconds)
    return Generation(last + 1) if generation <= last < latest_generation(int(wall_seconds * 1000)) else generation


def _read(path: Path) -> tuple[bytes, int] | None:
    """Token and last generation; None when there are none."""
    with storage_errors(f"cannot read the lease token {path}"):
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
    if len(data) != LEASE_TOKEN_BYTES + _GENERATION_BYTES:
        log_event(log, logging.WARNING, "lease_token_replaced", path=path, size_bytes=len(data))
        return None
    return data[:LEASE_TOKEN_BYTES], int.from_bytes(data[LEASE_TOKEN_BYTES:], "big")


def _write(path: Path, lease: Lease) -> None:
    successor = path.with_name(path.name + ".new")
    with storage_errors(f"cannot keep the lease token {path}"):
        successor.unlink(missing_ok=True)
        descriptor = os.open(successor, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(lease.token + lease.generation.to_bytes(_GENERATION_BYTES, "big"))
            file.flush()
            os.fsync(descriptor)
        with fsync_folder(path.parent):
            successor.replace(path)
