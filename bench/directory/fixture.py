"""Simulated peers, names and contents, and which peer holds what: functions of numbers, the same in every process."""

from collections.abc import Iterator
from dataclasses import dataclass

from blake3 import blake3

from minga_core.ids import Address, ContentId, Generation, PeerId
from minga_core.names import Name
from minga_core.records import FileRow, PeerInfo, RowKey

GENERATION = Generation(1_700_000_000_000 << 20)
CAPACITY_BYTES = 4 << 40
FREE_BYTES = 1 << 40
EPOCH_NS = 1_700_000_000_000_000_000
_FOLDERS = ("datasets", "models", "images", "builds", "logs")
_KINDS = ("parquet", "safetensors", "tar.zst", "whl", "json")


def peer_id(number: int) -> PeerId:
    """A host's name, as people give them."""
    return PeerId(f"node-{number:05}")


def host(number: int) -> str:
    """An address of this machine's for each peer: a registry gives each host its share."""
    return f"127.1.{number >> 8 & 255}.{number & 255}"


def peer_info(number: int) -> PeerInfo:
    """What the peer registers. No process listens at its address."""
    address = Address(f"198.18.{number >> 8 & 255}.{number & 255}:50053")
    return PeerInfo(peer_id(number), GENERATION, address, f"rack-{number % 40}", CAPACITY_BYTES, FREE_BYTES, "0.1.0")


def name(number: int) -> Name:
    """A name of about 40 bytes, as those of datasets and models have them; folders have a thousand files each."""
    kind = number % len(_KINDS)
    return Name(f"{_FOLDERS[kind]}/set-{number // 1000:05}/part-{number % 1000:04}-of-1000.{_KINDS[kind]}")


def content_id(number: int) -> ContentId:
    """Distinct for each number."""
    return ContentId(blake3(b"content %d" % number).digest())


def is_in_use(number: int) -> bool:
    """Whether other peers request the content: one in ten."""
    return number % 10 == 0


def row(number: int) -> FileRow:
    """The row of a content, the same on every peer that holds it."""
    at = EPOCH_NS + number * 1_000_000_007
    return FileRow(RowKey(name(number), content_id(number)), 1_000_000 + number, at, at)


@dataclass(frozen=True, slots=True)
class Layout:
    """`names` contents, each held by `copies` peers, spread so that any two peers share little.

    Names are cut into as many blocks as there are peers; block b is held by the peers b, b + step, b + 2 * step, …
    """

    names: int
    copies: int
    peers: int

    def __post_init__(self) -> None:
        if self.names % self.peers or not 0 < self.copies <= self.peers:
            raise ValueError(f"{self.names} names do not fall into {self.peers} blocks with {self.copies} holders each")

    @property
    def entries(self) -> int:
        """Rows of all peers."""
        return self.names * self.copies

    @property
    def files_a_peer(self) -> int:
        """Rows of each peer."""
        return self.entries // self.peers

    def blocks_of(self, peer: int) -> list[int]:
        """Blocks that a peer holds."""
        return [(peer - copy * self._step) % self.peers for copy in range(self.copies)]

    def numbers_in(self, block: int) -> range:
        """Contents of a block."""
        return range(block * self._block, (block + 1) * self._block)

    def rows_of(self, peer: int) -> Iterator[FileRow]:
        """A peer's file table."""
        return (row(number) for block in self.blocks_of(peer) for number in self.numbers_in(block))

    @property
    def _block(self) -> int:
        return self.names // self.peers

    @property
    def _step(self) -> int:
        """Odd where it can be, so that holders are both odd and even peers."""
        step = max(1, self.peers // self.copies)
        return step if step % 2 or (step + 1) * (self.copies - 1) >= self.peers else step + 1
