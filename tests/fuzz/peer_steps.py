"""Good calls of the peer, for attacks to spoil."""

from collections.abc import Callable

from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message

from minga_core.chunks import Geometry
from minga_core.ids import digest
from minga_core.manifest import Manifest
from minga_protos.peer.v1 import peer_pb2 as pb
from tests.fuzz.target import Target

UPLOADED = b"what the attacker uploads, when it does everything right\n"
NOWHERE = "127.0.0.1:9"


def manifest_of(data: bytes) -> Manifest:
    """Of bytes that are one chunk."""
    assert Geometry(len(data)).chunk_count == 1
    return Manifest.from_digests(len(data), digest(data))


def of(target: Target) -> Callable[[MethodDescriptor], list[Message]]:
    """Good messages for a method, about contents that the peer has."""
    held = [target.contents[name].content_id.raw for name in ("big.bin", "hello.txt", "empty")]
    ranges = [pb.ChunkRange(start_index=0, end_index=1)]
    source = pb.Source(peer_id="fuzz-source", address=NOWHERE)
    made: dict[str, Callable[[], list[Message]]] = {
        "GetManifest": lambda: [pb.GetManifestRequest(content_id=raw) for raw in held],
        "FetchChunks": lambda: [
            pb.FetchChunksRequest(content_id=held[0], wanted=ranges, max_chunks=2, peer_id="fuzz", address=NOWHERE),
            pb.FetchChunksRequest(content_id=held[1], wanted=ranges, accepts_bulk=True),
        ],
        "FetchFiles": lambda: [pb.FetchFilesRequest(content_ids=held, peer_id="fuzz")],
        "WatchChunks": lambda: [pb.WatchChunksRequest(content_id=raw) for raw in held],
        "StoreFile": upload,
        "ReplicateFile": lambda: [
            pb.ReplicateFileRequest(name="hello.txt", content_id=held[1], sources=[source]),
            pb.ReplicateFileRequest(name="fuzz/copy.txt", content_id=bytes(32), sources=[source]),
        ],
    }

    def steps(method: MethodDescriptor) -> list[Message]:
        return made[method.name]()

    return steps


def upload(name: str = "fuzz/uploaded.txt", data: bytes = UPLOADED, *, overwrite: bool = True) -> list[Message]:
    """All messages of an upload of one chunk."""
    manifest = manifest_of(data)
    encoded = manifest.encode()
    begin = pb.StoreBegin(
        name=name, content_id=manifest.content_id.raw, manifest_size_bytes=len(encoded), overwrite=overwrite
    )
    begin.published_time.seconds = 1_700_000_000
    return [
        pb.StoreFileRequest(begin=begin),
        pb.StoreFileRequest(manifest_part=encoded),
        pb.StoreFileRequest(chunk=pb.ChunkHeader(index=0, size_bytes=len(data))),
        pb.StoreFileRequest(data=data),
    ]
