"""What is to be fetched ahead of time, and where to, as people write both. Pure."""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from minga_core.errors import InvalidArgumentError
from minga_core.ids import PeerId, digest, parse_zone
from minga_core.names import ORIGINS_PREFIX, Name, parse_name
from minga_engine.wire.locator_answers import ListedPeer

MAX_ITEM_BYTES = 8 * 1024
"""Of one item (contract: peer.proto)."""
IMAGE_SCHEME = "oci://"
NAME_SCHEME = "minga://"
"""May stand before a name, as fsspec has it, and must before one that looks like an image."""
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
# A registry has a dot, a port, or is this machine; what has neither tag nor digest would be a name.
_IMAGE = re.compile(
    r"(?:[a-z0-9-]+(?:\.[a-z0-9-]+)+(?::\d+)?|[a-z0-9-]+:\d+|localhost)/[^:@]+(?::[^/:@]+)?(?:@sha256:.+)?"
)


@dataclass(frozen=True, slots=True)
class Item:
    """What is fetched. text: as peers are asked for it. name: of a file of the network; None: it lies elsewhere."""

    text: str
    name: Name | None = None


def parse_item(text: str) -> Item:
    """`NAME` or `minga://NAME`; `https://…`, `hf://REPOSITORY`, `oci://REGISTRY/REPOSITORY:TAG` and such; or an image
    without its scheme.

    Raises InvalidArgumentError, InvalidNameError.
    """
    if len(text.encode("utf-8", "surrogateescape")) > MAX_ITEM_BYTES:
        raise InvalidArgumentError(f"{text[:80]!r}… is longer than {MAX_ITEM_BYTES:,} bytes")
    is_name = text.startswith(NAME_SCHEME)
    if _SCHEME.match(text) and not is_name:
        return Item(text)
    if is_image(text):
        return Item(IMAGE_SCHEME + text)
    name = parse_name(text.removeprefix(NAME_SCHEME))
    if name.startswith(ORIGINS_PREFIX):
        raise InvalidArgumentError(f"{name!r} is fetched by what it is from", hint="minga preheat https://…")
    return Item(name, name)


def is_image(text: str) -> bool:
    """Whether it is taken for an image: a registry before it, and a tag or digest behind."""
    return _IMAGE.fullmatch(text) is not None and re.search(r"[:@][^/]*$", text) is not None


@dataclass(frozen=True, slots=True)
class Choice:
    """Which peers. zone: those of a zone; None for all zones. count: so many of them; None for all."""

    zone: str | None = None
    count: int | None = None

    def order(
        self, peers: Iterable[ListedPeer], item: Item, size_bytes: int, holders: Collection[PeerId]
    ) -> list[ListedPeer]:
        """The peers that are asked, in that order: more than `count`, for those that fail.

        Of some peers those with room for size_bytes, which holders need not have; these first, then one of each zone in
        turn. The order of the others follows from the item and their ids: the same command chooses the same peers, and
        items are spread over all.
        """
        found = [peer for peer in peers if self.zone in (None, peer.zone)]
        if self.count is None:
            return found
        fit = [peer for peer in found if peer.peer_id in holders or peer.free_bytes >= size_bytes]
        drawn = sorted(fit, key=lambda peer: digest(f"{item.text}\n{peer.peer_id}".encode()))
        seen: dict[str, int] = {}
        keys: dict[PeerId, tuple[bool, int]] = {}
        for peer in drawn:
            keys[peer.peer_id] = peer.peer_id not in holders, seen.setdefault(peer.zone, 0)
            seen[peer.zone] += 1
        return sorted(drawn, key=lambda peer: keys[peer.peer_id])


def parse_choice(text: str) -> Choice:
    """`all`, `zone=ZONE`, or a number. Raises InvalidArgumentError."""
    if text == "all":
        return Choice()
    if text.startswith("zone=") and text != "zone=":
        return Choice(zone=parse_zone(text.removeprefix("zone=")))
    if text.isascii() and text.isdigit() and int(text[:6]) > 0 and len(text) <= 6:
        return Choice(count=int(text))
    raise InvalidArgumentError(f"{text[:80]!r} are no peers: all, zone=ZONE, or how many")
