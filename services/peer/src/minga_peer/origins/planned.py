"""What something that lies elsewhere is made of, before it is fetched."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from minga_core.names import Name
from minga_peer.origins.origin_file import OriginFile


@dataclass(frozen=True, slots=True)
class PlannedFile:
    """One file. open: what to fetch it with, asked when it is fetched, since tokens end; raises MingaError. size_bytes:
    None when its origin does not say."""

    name: Name
    size_bytes: int | None
    open: Callable[[], Awaitable[OriginFile]]


@dataclass(frozen=True, slots=True)
class Plan:
    """All files of an item. resolved: what it is now, a digest or a commit; empty where there is neither."""

    resolved: str
    files: tuple[PlannedFile, ...]
