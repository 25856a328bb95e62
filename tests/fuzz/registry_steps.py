"""Good calls of the registry, for attacks to spoil."""

from collections.abc import Callable

from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message

from minga_protos.registry.v1 import registry_pb2 as pb
from tests.fuzz.target import Target

ME = {"peer_id": "fuzz-peer", "generation": 7}


def of(target: Target) -> Callable[[MethodDescriptor], list[Message]]:
    """Good messages for a method."""

    def steps(method: MethodDescriptor) -> list[Message]:
        return _STEPS[method.name]()

    return steps


def _push() -> list[Message]:
    row = pb.FileRow(name="fuzz/a.txt", content_id=bytes(32), size_bytes=5, state=pb.HOLDING_STATE_COMPLETE)
    row.modified_time.seconds = row.published_time.seconds = 1_700_000_000
    change = pb.TableRows(put=[row], remove=[pb.RowKey(name="fuzz/b.txt", content_id=bytes(32))])
    return [
        pb.PushTableRequest(begin=pb.TableBegin(**ME, base_revision=1, revision=2)),
        pb.PushTableRequest(rows=pb.TableRows(put=[row])),
        pb.PushTableRequest(rows=change),
        pb.PushTableRequest(end=pb.TableEnd(put_count=2, remove_count=1)),
    ]


def _register() -> list[Message]:
    request = pb.RegisterRequest(**ME, address="127.0.0.1:1", zone="z", capacity_bytes=9, free_bytes=9)
    request.asked_ttl.seconds = 2
    return [request]


def _beats() -> list[Message]:
    return [pb.HeartbeatRequest(**ME, table_revision=revision, free_bytes=3) for revision in (1, 1, 2)]


_STEPS: dict[str, Callable[[], list[Message]]] = {
    "Register": _register,
    "PushTable": _push,
    "Heartbeat": lambda: _beats()[:1],
    "KeepLease": _beats,
    "Leave": lambda: [pb.LeaveRequest(**ME)],
}
