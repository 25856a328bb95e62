"""Good messages of every method, for attacks to spoil."""

from collections.abc import Callable, Sequence

from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message

from minga_core.chunks import Geometry
from minga_core.ids import digest
from minga_core.manifest import Manifest
from minga_protos.peer.v1 import peer_pb2
from minga_protos.registry.v1 import registry_pb2
from tests.fuzz.target import Target

UPLOADED = b"what the attacker uploads, when it does everything right\n"
ABSENT = "127.0.0.1:9"
"""An address at which no process listens."""
ME = {"peer_id": "fuzz-peer", "generation": 7}

COMPLETE = registry_pb2.HOLDING_STATE_COMPLETE

Steps = Callable[[MethodDescriptor], Sequence[Message]]
"""Good messages of a call."""


def of_registry(target: Target) -> Steps:
    """Good calls of one peer."""
    register = registry_pb2.RegisterRequest(**ME, address="127.0.0.1:1", zone="z", capacity_bytes=9, free_bytes=9)
    register.asked_ttl.seconds = 2
    row = registry_pb2.FileRow(name="fuzz/a.txt", content_id=bytes(32), size_bytes=5, state=COMPLETE)
    row.modified_time.seconds = row.published_time.seconds = 1_700_000_000
    removed = registry_pb2.RowKey(name="fuzz/b.txt", content_id=bytes(32))
    push = [
        registry_pb2.PushTableRequest(begin=registry_pb2.TableBegin(**ME, base_revision=1, revision=2)),
        registry_pb2.PushTableRequest(rows=registry_pb2.TableRows(put=[row])),
        registry_pb2.PushTableRequest(rows=registry_pb2.TableRows(put=[row], remove=[removed])),
        registry_pb2.PushTableRequest(end=registry_pb2.TableEnd(put_count=2, remove_count=1)),
    ]
    heartbeats = [registry_pb2.HeartbeatRequest(**ME, table_revision=revision, free_bytes=3) for revision in (1, 1, 2)]
    found = registry_pb2.Publication(name="fuzz/b.txt", content_id=bytes(32))
    found.found_modified_time.seconds = 1_700_000_000
    new = registry_pb2.Publication(name="fuzz/a.txt", content_id=bytes(32))
    publish = registry_pb2.PublishRequest(**ME, publications=[new, found])
    return _copies_of(
        {
            "Register": [register],
            "PushTable": push,
            "KeepLease": heartbeats,
            "Publish": [publish],
            "ClaimFetch": [
                registry_pb2.ClaimFetchRequest(**ME, name="origins/a", transfer_id=bytes(32), http_port=1),
                registry_pb2.ClaimFetchRequest(
                    **ME, name="origins/a", transfer_id=bytes(32), http_port=1, instead_of=bytes(32), release=True
                ),
            ],
            "Leave": [registry_pb2.LeaveRequest(**ME)],
        }
    )


def of_peer(target: Target) -> Steps:
    """Good calls about contents that the peer has, and an upload of one chunk."""
    held = [target.contents[name].content_id.raw for name in ("big.bin", "hello.txt", "empty")]
    source = peer_pb2.Source(peer_id="fuzz-source", address=ABSENT)
    return _copies_of(
        {
            "GetManifest": [peer_pb2.GetManifestRequest(content_id=raw) for raw in held],
            "FollowDigests": [peer_pb2.FollowDigestsRequest(transfer_id=raw) for raw in (*held, bytes(32))],
            "StoreFile": _upload(),
            "ReplicateFile": [
                peer_pb2.ReplicateFileRequest(name="hello.txt", content_id=held[1], sources=[source]),
                peer_pb2.ReplicateFileRequest(name="fuzz/copy.txt", content_id=bytes(32), sources=[source]),
            ],
            "Preheat": [
                peer_pb2.PreheatRequest(item=f"http://{ABSENT}/a#sha256={64 * '0'}", pin=True),
                peer_pb2.PreheatRequest(item=f"oci://{ABSENT}/a/b:1", platform="linux/amd64"),
            ],
        }
    )


def _upload() -> list[Message]:
    size = len(UPLOADED)
    assert Geometry(size).chunk_count == 1
    manifest = Manifest.from_digests(size, digest(UPLOADED))
    encoded = manifest.encode()
    begin = peer_pb2.StoreBegin(
        name="fuzz/uploaded.txt", content_id=manifest.content_id.raw, manifest_size_bytes=len(encoded), overwrite=True
    )
    return [
        peer_pb2.StoreFileRequest(begin=begin),
        peer_pb2.StoreFileRequest(manifest_part=encoded),
        peer_pb2.StoreFileRequest(chunk=peer_pb2.ChunkHeader(index=0, size_bytes=size)),
        peer_pb2.StoreFileRequest(data=UPLOADED),
    ]


def _copies_of(steps: dict[str, Sequence[Message]]) -> Steps:
    """Callers change what they get."""

    def of(method: MethodDescriptor) -> list[Message]:
        return [type(message).FromString(message.SerializeToString()) for message in steps[method.name]]

    return of
