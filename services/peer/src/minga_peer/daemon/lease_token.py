"""The lease token: what shows the registry that a peer is the same one after a restart. A secret: never logged."""

import logging
import os
import secrets
from pathlib import Path

from minga_core.records import LEASE_TOKEN_BYTES
from minga_engine.parts.disk import storage_errors
from minga_engine.parts.files import fsync_folder
from minga_runtime.logs import log_event

log = logging.getLogger(__name__)

FILE_NAME = "lease-token"


def lease_token(state_dir: Path) -> bytes:
    """The token kept in the state folder; a new one when there is none, or none of the right length. Blocking.

    Raises StorageError or NoSpaceError when it cannot be read or kept: a peer with another token at each start would
    wait for its own lease to end.
    """
    path = state_dir / FILE_NAME
    with storage_errors(f"cannot keep the lease token {path}"):
        try:
            token = path.read_bytes()
        except FileNotFoundError:
            return _new_token(path)
        if len(token) == LEASE_TOKEN_BYTES:
            return token
        log_event(log, logging.WARNING, "lease_token_replaced", path=path, size_bytes=len(token))
        return _new_token(path)


def _new_token(path: Path) -> bytes:
    token = secrets.token_bytes(LEASE_TOKEN_BYTES)
    successor = path.with_name(path.name + ".new")
    successor.unlink(missing_ok=True)
    descriptor = os.open(successor, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(token)
        file.flush()
        os.fsync(descriptor)
    with fsync_folder(path.parent):
        successor.replace(path)
    return token
