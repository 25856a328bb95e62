"""Table pushes made beforehand: on real networks each peer makes its own, here one process would make all of them."""

from bench.directory import world
from bench.directory.world import World
from minga_peer.daemon.registry import BATCH_ROWS, _row
from minga_protos.registry.v1 import registry_pb2 as pb

PUSH_TABLE = "/minga.registry.v1.RegistryService/PushTable"
_ROWS_STEP = b"\x12"
"""Key of `PushTableRequest.rows`: field 2, a message."""


class PreparedTables:
    """The rows of each peer as messages of at most BATCH_ROWS rows. Blocks are encoded once and shared by holders:
    an encoded `TableRows` after another is one with the rows of both."""

    def __init__(self, made: World) -> None:
        self._world = made
        self._blocks: dict[int, bytes] = {}

    def prepare(self, peers: list[int]) -> None:
        """Encodes what those peers hold."""
        for peer in peers:
            for block in self._world.blocks_of(peer):
                self._block(block)

    def messages(self, peer: int, revision: int = 1) -> list[bytes]:
        """All messages of a push of the whole table."""
        info = world.peer_info(peer)
        begin = pb.TableBegin(peer_id=info.peer_id, generation=info.generation, whole=True, revision=revision)
        end = pb.TableEnd(put_count=self._world.files_a_peer)
        return [
            pb.PushTableRequest(begin=begin).SerializeToString(),
            *(_ROWS_STEP + _varint(len(rows)) + rows for rows in self._batches(peer)),
            pb.PushTableRequest(end=end).SerializeToString(),
        ]

    def _batches(self, peer: int) -> list[bytes]:
        blocks = [self._block(block) for block in self._world.blocks_of(peer)]
        each = len(self._world.numbers_in(0))
        if each > BATCH_ROWS:
            raise ValueError(f"a block of {each} rows does not fit into a message")
        together = BATCH_ROWS // each
        return [b"".join(blocks[start : start + together]) for start in range(0, len(blocks), together)]

    def _block(self, block: int) -> bytes:
        if block not in self._blocks:
            rows = [_row(world.row(number)) for number in self._world.numbers_in(block)]
            self._blocks[block] = pb.TableRows(put=rows).SerializeToString()
        return self._blocks[block]


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
