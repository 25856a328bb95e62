"""A download in a trace: one span for each source, from its first request to the download's end.

Requests carry their source's span, so that the serving peer puts its own span below it.
"""

from collections.abc import Sequence
from contextvars import Context, copy_context

from opentelemetry.context import attach
from opentelemetry.trace import Span, set_span_in_context
from opentelemetry.util.types import AttributeValue

from minga_core.ids import ContentId, PeerId
from minga_engine.explanation import Explanation, SourceShare
from minga_engine.wire.messages import SourceAddress
from minga_runtime import tracing


class SourceSpans:
    """The spans of one download's sources. Made in the download's task, whose span is their parent."""

    def __init__(self, content_id: ContentId) -> None:
        self._content_id = content_id
        self.context = copy_context()
        """The download's own, for tasks that work for no one source: an event may come in the context of any."""
        self._spans: dict[PeerId, tuple[Span, Context]] = {}

    @classmethod
    def if_traced(cls, content_id: ContentId) -> "SourceSpans | None":
        """None when the download's span is not recorded."""
        return cls(content_id) if tracing.current().is_recording() else None

    def asking(self, source: SourceAddress) -> Context:
        """The context for one request to a source, and for one task: what the task changes stays with it."""
        if source.peer_id not in self._spans:
            host, _, port = source.address.rpartition(":")
            about: tracing.Attributes = {
                "server.address": host.strip("[]"),
                "server.port": int(port),
                "minga.peer.id": source.peer_id,
                "minga.content.id": str(self._content_id),
            }
            context = self.context.copy()
            span = context.run(tracing.start_client_span, "fetch chunks", about)
            context.run(attach, set_span_in_context(span))
            self._spans[source.peer_id] = span, context
        return self._spans[source.peer_id][1].copy()

    def note(self, peer_id: PeerId, event: str, attributes: dict[str, AttributeValue] | None = None) -> None:
        """Add an event to a source's span; without effect for a source that was never asked."""
        if (found := self._spans.get(peer_id)) is not None:
            found[0].add_event(event, attributes)

    def end(self, shares: Sequence[SourceShare]) -> None:
        """End the spans with the download. shares: what each source contributed."""
        of_source = {share.peer_id: share for share in shares}
        for peer_id, (span, _) in self._spans.items():
            if (share := of_source.get(peer_id)) is not None:
                span.set_attributes(_attributes(share))
            span.end()
        self._spans.clear()


def download_attributes(outcome: str, explanation: Explanation | None) -> dict[str, AttributeValue]:
    """The attributes of a download's span: the fields of its log line, and bytes by kind of source.

    explanation: None when nothing was fetched.
    """
    about: dict[str, AttributeValue] = {"minga.download.outcome": outcome}
    if explanation is None:
        return about
    for name, value in tracing.present(explanation.log_fields()).items():
        if name == "bytes_by_source":
            continue  # each source has a span of its own
        if isinstance(value, dict):
            about |= {f"minga.download.{name}.{key.replace(' ', '_')}": part for key, part in value.items()}
        else:
            about[f"minga.download.{name}"] = value
    for kind, complete in (("complete", True), ("partial", False)):
        count = sum(source.received_bytes for source in explanation.sources if source.complete is complete)
        about[f"minga.download.bytes_by_kind.{kind}"] = count
    return about


def _attributes(share: SourceShare) -> dict[str, AttributeValue]:
    numbers: dict[str, AttributeValue] = {
        "chunks": share.chunk_count,
        "received_bytes": share.received_bytes,
        "working_seconds": round(share.working_seconds, 6),
        "queued_seconds": round(share.queued_seconds, 6),
        "busy_answers": share.busy_answers,
        "losses": share.losses,
        "corrupt_chunks": share.corrupt_chunks,
    }
    kind = {"kind": "complete" if share.complete else "partial", "same_zone": share.same_zone}
    return {f"minga.source.{name}": value for name, value in (numbers | kind).items()}
