"""The peer daemon's settings."""

import re
import socket
from datetime import timedelta
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field, field_validator

from minga_engine.settings import TransferSettings, absolute, in_utf8
from minga_peer.images.registries import parse_registries
from minga_peer.models.hub import parse_hub
from minga_peer.origins.allowed import parse_prefixes
from minga_peer.origins.cache import parse_limit
from minga_peer.share.store import StoreSettings
from minga_runtime.settings import (
    AddressText,
    ByteCount,
    GatewayText,
    HttpListenText,
    ListenText,
    PartSettings,
    PeerIdText,
    Seconds,
    ZoneText,
    checked,
    parsed_by,
)

FetchAllowText = Annotated[str, AfterValidator(checked(lambda text: ",".join(parse_prefixes(text))))]
"""Prefixes of URLs, with commas between; may be empty."""
ImagesText = Annotated[
    str, AfterValidator(checked(lambda text: ",".join(each.setting for each in parse_registries(text))))
]
"""Registries of images, with commas between; may be empty."""
HubText = Annotated[str, AfterValidator(checked(parse_hub))]
"""The URL of a hub of models; may be empty."""

CacheText = Annotated[str, AfterValidator(parsed_by(parse_limit))]
"""A share of the capacity as `20%`, or bytes as `500GB`."""


def default_peer_id() -> str:
    """The host's name, with characters that a peer id may not have replaced by `-`."""
    cleaned = re.sub(r"[^A-Za-z0-9._-]+", "-", socket.gethostname()).strip("-._")
    return cleaned[:128] or "peer"


class PeerSettings(PartSettings, TransferSettings):
    """The settings of a peer daemon."""

    listen_settings: ClassVar[tuple[str, ...]] = ("listen", "http_listen", "gateway")

    share_dir: Path
    state_dir: Path | None = None
    registry: AddressText = "127.0.0.1:50051"
    peer_id: PeerIdText = Field(default_factory=default_peer_id)
    listen: ListenText = "0.0.0.0:50053"
    http_listen: HttpListenText = "auto"
    gateway: GatewayText = "auto"
    advertise: AddressText | None = None
    zone: ZoneText = ""
    capacity: ByteCount | None = None
    lease_ttl: Seconds | None = None
    serving_slots: Annotated[int, Field(ge=1, le=10_000)] = 256
    """Chunk requests that are served or wait at a time; a few are served, and one too many is refused as busy."""
    max_uploads: Annotated[int, Field(ge=1, le=10_000)] = 512
    """`minga put` makes 32 of small files at a time."""
    upload_quota: ByteCount = 0
    keep_read: bool = True
    fetch_allow: FetchAllowText = ""
    images: ImagesText = ""
    hub: HubText = "https://huggingface.co"
    cache: CacheText = "20%"
    settle: Seconds = timedelta(seconds=0.5)
    rescan: Seconds = timedelta(minutes=5)
    scrub: Seconds = timedelta(days=30)
    hash_threads: Annotated[int, Field(ge=1, le=64)] = 4
    stop_grace: Seconds = timedelta(seconds=2)
    """How long a peer that has left goes on serving those that are downloading from it."""
    metrics_listen: ListenText | None = None
    port_file: Path | None = None

    @field_validator("share_dir", "state_dir")
    @classmethod
    def _absolute_in_utf8(cls, value: Path | None) -> Path | None:
        return None if value is None else absolute(in_utf8(value))

    @field_validator("settle", "rescan")
    @classmethod
    def _positive(cls, value: timedelta) -> timedelta:
        if not timedelta(0) < value <= timedelta(days=1):
            raise ValueError("must be more than 0 and at most a day")
        return value

    @field_validator("scrub")
    @classmethod
    def _not_too_often(cls, value: timedelta) -> timedelta:
        if timedelta(0) < value < timedelta(minutes=1):
            raise ValueError("must be at least 60, or 0 for never")
        return value

    @property
    def store(self) -> StoreSettings:
        """How the folder is shared."""
        return StoreSettings(
            self.share_dir,
            state_dir=self.state_dir,
            capacity_bytes=self.capacity,
            hash_threads=self.hash_threads,
            settle_seconds=self.settle.total_seconds(),
            rescan_seconds=self.rescan.total_seconds(),
            scrub_seconds=self.scrub.total_seconds(),
        )
