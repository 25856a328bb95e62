"""What a download is in a trace, and what it asks of each source: one span for each source, from the first request to
the download's end.

Requests carry their source's span along, so that the peer that serves them puts its own span below it.
"""

from collections.abc import Sequence
from contextvars import Context, copy_context

from minga_core.ids import ContentId, PeerId
from minga_engine.explanation import Explanation, SourceShare
from minga_engine.wire.messages import SourceAddress
from minga_runtime import tracing
from minga_runtime.tracing import Attributes, Span, Value


class SourceSpans:
    """The spans of one download's sources; made in the task of the download, whose span theirs are below."""

    def __init__(self, content_id: ContentId) -> None:
        self._content_id = content_id
        self.context = copy_context()
        """The download's own, for tasks that work for no one source: an event may come in the context of any."""
        self._spans: dict[PeerId, tuple[Span, Context]] = {}

    @classmethod
    def if_traced(cls, content_id: ContentId) -> "SourceSpans | None":
        """None when nobody wants to know."""
        return cls(content_id) if tracing.current().recording else None

    def asking(self, source: SourceAddress) -> Context:
        """The context for a request to a source. For one task: what that changes stays with it."""
        if source.peer_id not in self._spans:
            host, _, port = source.address.rpartition(":")
            about: Attributes = {
                "server.address": host.strip("[]"),
                "server.port": int(port),
                "minga.peer.id": source.peer_id,
                "minga.content.id": str(self._content_id),
            }
            span = self.context.copy().run(tracing.call, "fetch chunks", about)
            context = self.context.copy()
            context.run(tracing.enter, span)
            self._spans[source.peer_id] = span, context
        return self._spans[source.peer_id][1].copy()

    def note(self, peer_id: PeerId, event: str, attributes: Attributes | None = None) -> None:
        """Something happened with a source; nothing is noted of one that was never asked."""
        if (found := self._spans.get(peer_id)) is not None:
            found[0].event(event, attributes)

    def end(self, shares: Sequence[SourceShare]) -> None:
        """The download is over. shares: what each source's part was."""
        of_source = {share.peer_id: share for share in shares}
        for peer_id, (span, _) in self._spans.items():
            if (share := of_source.get(peer_id)) is not None:
                span.set(_attributes(share))
            span.end()
        self._spans.clear()


def download_attributes(outcome: str, explanation: Explanation | None) -> Attributes:
    """What a download's span tells of how it went: the fields of its log line, and bytes by what the source was.

    explanation: None when nothing was fetched.
    """
    about: dict[str, Value | None] = {"minga.download.outcome": outcome}
    if explanation is None:
        return about
    for name, value in explanation.log_fields().items():
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


def _attributes(share: SourceShare) -> Attributes:
    numbers = {
        "chunks": share.chunk_count,
        "received_bytes": share.received_bytes,
        "working_seconds": round(share.working_seconds, 6),
        "queued_seconds": round(share.queued_seconds, 6),
        "busy_answers": share.busy_answers,
        "losses": share.losses,
        "corrupt_chunks": share.corrupt_chunks,
    }
    by_path = {f"minga.source.bytes_by_path.{path.name.lower()}": count for path, count in share.bytes_by_path.items()}
    kind = {"minga.source.kind": "complete" if share.complete else "partial", "minga.source.same_zone": share.same_zone}
    return {f"minga.source.{name}": value for name, value in numbers.items()} | by_path | kind
