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
    """The rows of each peer as messages of at most BATCH_ROWS rows. Blocks are encoded once and shared by holders:
    an encoded `TableRows` after another is one with the rows of both. publication_key: rows have its tags."""

    def __init__(self, layout: Layout, peers: list[int], publication_key: str = "") -> None:
        self._layout = layout
        keys = parse_keys(publication_key.encode()) if publication_key else None
        self._blocks = {block: _encoded(layout, block, keys) for peer in peers for block in layout.blocks_of(peer)}

    def messages(self, peer: int, revision: int = 1) -> list[bytes]:
        """All messages of a push of the whole table."""
        info = fixture.peer_info(peer)
        begin = pb.TableBegin(peer_id=info.peer_id, generation=info.generation, whole=True, revision=revision)
        end = pb.TableEnd(put_count=self._layout.files_a_peer)
        blocks = [self._blocks[block] for block in self._layout.blocks_of(peer)]
        together = max(1, BATCH_ROWS // len(self._layout.numbers_in(0)))
        batches = [b"".join(blocks[start : start + together]) for start in range(0, len(blocks), together)]
        return [
            pb.PushTableRequest(begin=begin).SerializeToString(),
            *(pb.PushTableRequest(rows=pb.TableRows.FromString(batch)).SerializeToString() for batch in batches),
            pb.PushTableRequest(end=end).SerializeToString(),
        ]


def _encoded(layout: Layout, block: int, keys: PublicationKeys | None) -> bytes:
    return pb.TableRows(put=[_row(number, keys) for number in layout.numbers_in(block)]).SerializeToString()


def _row(number: int, keys: PublicationKeys | None) -> pb.FileRow:
    row = fixture.row(number)
    tag = keys.tag(row.key, row.published_ns) if keys else b""
    time = Timestamp(seconds=row.published_ns // 10**9, nanos=row.published_ns % 10**9)
    return pb.FileRow(
        name=row.key.name, content_id=row.key.content_id.raw, size_bytes=row.size_bytes, modified_time=time,
        published_time=time, state=pb.HOLDING_STATE_COMPLETE, tag=tag,
    )  # fmt: skip
