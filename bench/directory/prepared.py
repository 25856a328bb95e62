"""Table pushes encoded beforehand: on real networks each peer encodes its own, here one process would encode all."""

from google.protobuf.timestamp_pb2 import Timestamp

from bench.directory import fixture
from bench.directory.fixture import Layout
from minga_protos.registry.v1 import registry_pb2 as pb
from minga_runtime.trust.publication_keys import PublicationKeys, parse_keys

PUSH_TABLE = "/minga.registry.v1.RegistryService/PushTable"
BATCH_ROWS = 1_000
"""Rows in a message (contract: registry.proto)."""


class PreparedTables:
    """The rows of each peer as messages of at most BATCH_ROWS rows. Blocks are encoded once and shared by holders, rows
    in use and others apart: an encoded `TableRows` after another is one with the rows of both. publication_key: rows
    have its tags."""

    def __init__(self, layout: Layout, peers: list[int], publication_key: str = "") -> None:
        self._layout = layout
        keys = parse_keys(publication_key.encode()) if publication_key else None
        blocks = {block for peer in peers for block in layout.blocks_of(peer)}
        self._in_use = {block: _encoded(layout, block, keys, in_use=True) for block in blocks}
        self._others = {block: _encoded(layout, block, keys, in_use=False) for block in blocks}

    @property
    def rows_a_peer(self) -> int:
        """Rows of each whole table."""
        return self._layout.files_a_peer

    def messages(self, peer: int, revision: int = 1) -> list[bytes]:
        """All messages of a push of the whole table."""
        blocks = self._layout.blocks_of(peer)
        encoded = [self._in_use[block] + self._others[block] for block in blocks]
        begin = pb.TableBegin(whole=True, revision=revision)
        return self._push(peer, begin, encoded, self.rows_a_peer)

    def messages_of_others(self, peer: int, base_revision: int, revision: int) -> list[bytes]:
        """All messages of a push that adds the rows that are not in use."""
        blocks = self._layout.blocks_of(peer)
        count = sum(not fixture.is_in_use(number) for block in blocks for number in self._layout.numbers_in(block))
        begin = pb.TableBegin(base_revision=base_revision, revision=revision)
        return self._push(peer, begin, [self._others[block] for block in blocks], count)

    def _push(self, peer: int, begin: pb.TableBegin, blocks: list[bytes], count: int) -> list[bytes]:
        info = fixture.peer_info(peer)
        begin.peer_id, begin.generation = info.peer_id, info.generation
        together = max(1, BATCH_ROWS // len(self._layout.numbers_in(0)))
        batches = [b"".join(blocks[start : start + together]) for start in range(0, len(blocks), together)]
        return [
            pb.PushTableRequest(begin=begin).SerializeToString(),
            *(pb.PushTableRequest(rows=pb.TableRows.FromString(batch)).SerializeToString() for batch in batches),
            pb.PushTableRequest(end=pb.TableEnd(put_count=count)).SerializeToString(),
        ]


def _encoded(layout: Layout, block: int, keys: PublicationKeys | None, *, in_use: bool) -> bytes:
    numbers = [number for number in layout.numbers_in(block) if fixture.is_in_use(number) is in_use]
    return pb.TableRows(put=[_row(number, keys) for number in numbers]).SerializeToString()


def _row(number: int, keys: PublicationKeys | None) -> pb.FileRow:
    row = fixture.row(number)
    tag = keys.tag(row.key, row.published_ns) if keys else b""
    time = Timestamp(seconds=row.published_ns // 10**9, nanos=row.published_ns % 10**9)
    return pb.FileRow(
        name=row.key.name, content_id=row.key.content_id.raw, size_bytes=row.size_bytes, modified_time=time,
        published_time=time, state=pb.HOLDING_STATE_COMPLETE, tag=tag,
    )  # fmt: skip
