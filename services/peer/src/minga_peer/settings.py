"""The peer's settings, and those of a command."""

import os
import re
import socket
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator

from minga_core.units import format_rate
from minga_peer.transfer.limits import MIN_BYTES_PER_SECOND
from minga_runtime.settings import (
    AddressText,
    BulkText,
    ByteCount,
    ByteRate,
    ListenText,
    PeerIdText,
    Seconds,
    Settings,
    ZoneText,
)

DEFAULT_LOCATOR = "http://127.0.0.1:50052"


def default_control_socket() -> Path:
    """The control socket of this user: in XDG_RUNTIME_DIR, or a folder of the user's own in the temp directory."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    folder = Path(runtime) / "minga" if runtime else Path(tempfile.gettempdir()) / f"minga-{os.getuid()}"
    return folder / "peer.sock"


def default_peer_id() -> str:
    """The host's name, with whatever a peer id may not have replaced by `-`."""
    cleaned = re.sub(r"[^A-Za-z0-9._-]+", "-", socket.gethostname()).strip("-._")
    return cleaned[:128] or "peer"


class ClientSettings(Settings):
    """What a `minga` command needs to know."""

    locator: Annotated[str, Field(pattern="^https?://")] = DEFAULT_LOCATOR
    control: Path = Field(default_factory=default_control_socket)
    source_wait: Seconds = timedelta(minutes=5)
    bulk: BulkText = "auto"
    limit_up: ByteRate = 0
    limit_down: ByteRate = 0

    @field_validator("limit_up", "limit_down")
    @classmethod
    def _moves(cls, value: int) -> int:
        if 0 < value < MIN_BYTES_PER_SECOND:
            raise ValueError(f"at least {format_rate(MIN_BYTES_PER_SECOND)} is wanted, or 0 for no limit")
        return value

    @property
    def uses_bulk(self) -> bool:
        """Whether the bulk path is offered and used."""
        return self.bulk != "off"

    @property
    def source_wait_or_forever(self) -> timedelta | None:
        """How long to wait for a source; None for ever."""
        return self.source_wait or None


class PeerSettings(ClientSettings):
    """What a peer daemon needs to know."""

    share_dir: Path
    state_dir: Path | None = None
    registry: AddressText = "127.0.0.1:50051"
    peer_id: PeerIdText = Field(default_factory=default_peer_id)
    listen: ListenText = "0.0.0.0:50053"
    advertise: AddressText | None = None
    zone: ZoneText = ""
    capacity: ByteCount | None = None
    lease_ttl: Seconds | None = None
    upload_slots: Annotated[int, Field(ge=1, le=10_000)] = 256
    """Chunk requests that are served or wait at a time; a few are served, and one too many is told to ask others."""
    quiet: Seconds = timedelta(seconds=0.5)
    rescan: Seconds = timedelta(minutes=5)
    hash_threads: Annotated[int, Field(ge=1, le=64)] = 4
    stop_grace: Seconds = timedelta(seconds=2)
    """For those who fetch from a peer that is told to stop. It has left by then, and nobody new is sent to it."""
    metrics_listen: ListenText | None = None
    port_file: Path | None = None

    @field_validator("quiet", "rescan")
    @classmethod
    def _positive(cls, value: timedelta) -> timedelta:
        if not timedelta(0) < value <= timedelta(days=1):
            raise ValueError("more than 0 and at most a day is wanted")
        return value
