"""An explanation in the control contract's messages, there and back; pb2 classes stop here."""

from datetime import timedelta

from google.protobuf.duration_pb2 import Duration

from minga_core.ids import parse_peer_id
from minga_engine.explanation import Explanation, Phase, SourceShare, TransferPath, WaitCause
from minga_protos.control.v1 import control_pb2 as pb

MAX_SOURCES = 50
"""Sources in a message (contract: control.proto)."""
MAX_DROPS = 10

_PHASES = {
    Phase.LOCATING: pb.EXPLAINED_PHASE_LOCATING,
    Phase.MANIFEST: pb.EXPLAINED_PHASE_MANIFEST,
    Phase.WAITING: pb.EXPLAINED_PHASE_WAITING,
    Phase.FETCHING: pb.EXPLAINED_PHASE_FETCHING,
    Phase.FINISHING: pb.EXPLAINED_PHASE_FINISHING,
}
_CAUSES = {
    WaitCause.TURN: pb.WAIT_CAUSE_TURN,
    WaitCause.SILENCE: pb.WAIT_CAUSE_SILENCE,
    WaitCause.BUSY: pb.WAIT_CAUSE_BUSY,
    WaitCause.NOTHING_NEW: pb.WAIT_CAUSE_NOTHING_NEW,
    WaitCause.NO_SOURCE: pb.WAIT_CAUSE_NO_SOURCE,
    WaitCause.LIMIT: pb.WAIT_CAUSE_LIMIT,
    WaitCause.DISK: pb.WAIT_CAUSE_DISK,
}
_PATHS = {
    TransferPath.GRPC: pb.TRANSFER_PATH_GRPC,
    TransferPath.BULK: pb.TRANSFER_PATH_BULK,
    TransferPath.LOCAL_COPY: pb.TRANSFER_PATH_LOCAL_COPY,
}
_PHASE_OF = {number: phase for phase, number in _PHASES.items()}
_CAUSE_OF = {number: cause for cause, number in _CAUSES.items()}
_PATH_OF = {number: path for path, number in _PATHS.items()}


def explanation_to_pb(found: Explanation) -> pb.Explanation:
    """An explanation as the contract's message."""
    longest = found.longest_wait_cause
    return pb.Explanation(
        total_time=_duration(found.seconds),
        size_bytes=found.size_bytes,
        resumed_bytes=found.resumed_bytes,
        wasted_bytes=found.wasted_bytes,
        hedge_count=found.hedges,
        duplicate_count=found.duplicates,
        sources=[_source_to_pb(source) for source in found.sources[:MAX_SOURCES]],
        phases=[
            pb.PhaseTime(phase=_PHASES[phase], time=_duration(part)) for phase, part in found.phase_seconds.items()
        ],
        waits=[pb.WaitTime(cause=_CAUSES[cause], time=_duration(part)) for cause, part in found.waited_seconds.items()],
        longest_wait=_duration(found.longest_wait_seconds),
        longest_wait_cause=pb.WAIT_CAUSE_UNSPECIFIED if longest is None else _CAUSES[longest],
        best_rate_bytes_per_second=found.best_rate,
        limit_bytes_per_second=int(found.limit_rate),
    )


def explanation_from_pb(message: pb.Explanation) -> Explanation:
    """An explanation from the daemon; what a newer one may add is left out. Raises InvalidArgumentError."""
    return Explanation(
        seconds=_seconds(message.total_time),
        size_bytes=message.size_bytes,
        resumed_bytes=message.resumed_bytes,
        wasted_bytes=message.wasted_bytes,
        hedges=message.hedge_count,
        duplicates=message.duplicate_count,
        sources=tuple(_source_from_pb(source) for source in message.sources),
        phase_seconds={
            _PHASE_OF[item.phase]: _seconds(item.time) for item in message.phases if item.phase in _PHASE_OF
        },
        waited_seconds={
            _CAUSE_OF[item.cause]: _seconds(item.time) for item in message.waits if item.cause in _CAUSE_OF
        },
        longest_wait_seconds=_seconds(message.longest_wait),
        longest_wait_cause=_CAUSE_OF.get(message.longest_wait_cause),
        best_rate=message.best_rate_bytes_per_second,
        limit_rate=float(message.limit_bytes_per_second),
    )


def _source_to_pb(source: SourceShare) -> pb.ExplainedSource:
    paths = source.bytes_by_path.items()
    return pb.ExplainedSource(
        peer_id=source.peer_id,
        complete=source.complete,
        same_zone=source.same_zone,
        received_bytes=source.received_bytes,
        chunk_count=source.chunk_count,
        working_time=_duration(source.working_seconds),
        queued_time=_duration(source.queued_seconds),
        paths=[pb.PathBytes(path=_PATHS[path], received_bytes=count) for path, count in paths],
        busy_count=source.busy_answers,
        lost_count=source.losses,
        corrupt_count=source.corrupt_chunks,
        drops=[pb.SourceDrop(why=why, count=count) for why, count in list(source.drops.items())[:MAX_DROPS]],
    )


def _source_from_pb(item: pb.ExplainedSource) -> SourceShare:
    return SourceShare(
        parse_peer_id(item.peer_id),
        complete=item.complete,
        same_zone=item.same_zone,
        received_bytes=item.received_bytes,
        chunk_count=item.chunk_count,
        working_seconds=_seconds(item.working_time),
        queued_seconds=_seconds(item.queued_time),
        bytes_by_path={_PATH_OF[part.path]: part.received_bytes for part in item.paths if part.path in _PATH_OF},
        busy_answers=item.busy_count,
        losses=item.lost_count,
        corrupt_chunks=item.corrupt_count,
        drops={drop.why: drop.count for drop in item.drops},
    )


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromTimedelta(timedelta(seconds=seconds))
    return duration


def _seconds(duration: Duration) -> float:
    return duration.seconds + duration.nanos / 1e9
