"""Answers of the two hot requests as JSON, put together from pieces that are made once.

The shapes are those of `models`, which declare them; a test holds every byte against theirs.
"""

import json
from collections.abc import Sequence
from functools import lru_cache
from random import random

from minga_core.names import Name
from minga_directory.ports import Holder, Placement, Version
from minga_locator.models import time_of

_quoted = json.encoder.encode_basestring


class EncodedFile:
    """A name's versions, and what `models.FileInfo` makes of them."""

    __slots__ = ("_beginning", "_drawn", "_parts", "versions")

    def __init__(self, name: Name, versions: Sequence[Version]) -> None:
        self.versions = versions
        """Newest published first; none when nobody shares that name."""
        self._beginning = f'{{"name":{_quoted(name)},"versions":['.encode()
        self._drawn = True
        """Whether the sources are in an order that nobody has been told yet: the directory gives them by lot."""
        self._parts = [(_head(version), [_source(holder) for holder in version.holders]) for version in versions]

    def body(self) -> bytes:
        """The answer. Sources are in another order each time, or all who are told the same began with the same."""
        drawn, self._drawn = self._drawn, False
        parts = [b"%b%b]}" % (head, b",".join(of if drawn else _by_lot(of))) for head, of in self._parts]
        return b"%b%b]}" % (self._beginning, b",".join(parts))


def placements_body(peers: Sequence[Placement]) -> bytes:
    """What `models.PlacementList` makes of those peers."""
    return b'{"placements":[%b]}' % b",".join(
        [b'%b,"free_bytes":%d}' % (_peer(peer.peer_id, peer.address, peer.zone), peer.free_bytes) for peer in peers]
    )


def _by_lot(pieces: list[bytes]) -> list[bytes]:
    # A third of what `random.shuffle` costs.
    return sorted(pieces, key=_lot)


def _lot(_: object) -> float:
    return random()  # noqa: S311 - spreading, not secrets


def _head(version: Version) -> bytes:
    return (
        f'{{"content_id":"{version.content_id}","size_bytes":{version.size_bytes},'
        f'"published_time":"{time_of(version.published_ns)}","complete_count":{version.complete_count},'
        f'"partial_count":{version.partial_count},"sources":['
    ).encode()


# Kept: a peer is met with every file that it has.


@lru_cache(maxsize=40_000)
def _source(holder: Holder) -> bytes:
    return b'%b,"state":"%b"}' % (_peer(holder.peer_id, holder.address, holder.zone), holder.state.value.encode())


@lru_cache(maxsize=20_000)
def _peer(peer_id: str, address: str, zone: str) -> bytes:
    return f'{{"peer_id":{_quoted(peer_id)},"address":{_quoted(address)},"zone":{_quoted(zone)}'.encode()
