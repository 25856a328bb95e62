"""The peer daemon's settings."""

import re
import socket
from datetime import timedelta
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator

from minga_engine.settings import TransferSettings
from minga_runtime.settings import AddressText, ByteCount, HttpListenText, ListenText, PeerIdText, Seconds, ZoneText


def default_peer_id() -> str:
    """The host's name, with whatever a peer id may not have replaced by `-`."""
    cleaned = re.sub(r"[^A-Za-z0-9._-]+", "-", socket.gethostname()).strip("-._")
    return cleaned[:128] or "peer"


class PeerSettings(TransferSettings):
    """What a peer daemon needs to know."""

    share_dir: Path
    state_dir: Path | None = None
    registry: AddressText = "127.0.0.1:50051"
    peer_id: PeerIdText = Field(default_factory=default_peer_id)
    listen: ListenText = "0.0.0.0:50053"
    http_listen: HttpListenText = "auto"
    advertise: AddressText | None = None
    zone: ZoneText = ""
    capacity: ByteCount | None = None
    lease_ttl: Seconds | None = None
    serving_slots: Annotated[int, Field(ge=1, le=10_000)] = 256
    """Chunk requests that are served or wait at a time; a few are served, and one more is refused."""
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
