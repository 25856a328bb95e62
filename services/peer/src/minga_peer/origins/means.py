"""What files of origins are fetched with."""

from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Protocol

from minga_core.clock import Clock
from minga_core.names import Name
from minga_engine.parts.disk import DiskPool
from minga_engine.transfer.locating import Directory, Located
from minga_engine.transfer.options import TransferOptions
from minga_engine.transfer.stream import Fetch
from minga_engine.wire.digests import DigestStep
from minga_engine.wire.messages import SourceAddress
from minga_engine.wire.transport import Transport
from minga_peer.origins._metrics import OriginMetrics
from minga_peer.origins.cache import Cache
from minga_peer.origins.checking import Checked
from minga_peer.origins.claims import Registry
from minga_peer.origins.upstream import Upstream
from minga_peer.share.store import ContentStore


class Local(Protocol):
    """The complete files of this peer."""

    def named(self, name: Name) -> Located | None:
        """The file of that name."""
        ...


class Digests(Protocol):
    """Follows the digests of files that peers fetch."""

    def follow(self, source: SourceAddress, transfer_id: bytes) -> AsyncGenerator[DigestStep, None]:
        """See DigestClient."""
        ...


class Announced(Protocol):
    """Announces shared files to the registry."""

    async def __call__(self, name: Name, timeout: timedelta) -> None:
        """Return when the registry has the file of that name. Raises RegistryUnavailableError."""
        ...


@dataclass(frozen=True, slots=True)
class Means:
    """What files are fetched with. download: from the swarm into the shared folder. spool: a folder for what has no
    size. http_port: where this peer serves chunks."""

    store: ContentStore
    local: Local
    directory: Directory
    download: Fetch
    transport: Transport
    digests: Digests
    options: TransferOptions
    upstream: Upstream
    registry: Registry
    announced: Announced
    checked: Checked
    pool: DiskPool
    spool: Path
    http_port: Callable[[], int]
    clock: Clock
    cache: Cache
    metrics: OriginMetrics
