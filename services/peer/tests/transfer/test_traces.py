"""What a transfer looks like in a trace: few spans however many chunks, each below what asked for it."""

from collections.abc import Iterator
from datetime import timedelta

import pytest

from minga_core.clock import SystemClock
from minga_core.errors import NoSourcesError
from minga_core.ids import ContentId
from minga_peer.serve import spans as serve_spans
from minga_peer.serve.spans import ServeSpans
from minga_runtime import tracing
from tests.support.spans import KeepingTracer, KeptSpan, keeping_spans

from .conftest import LIMIT_SECONDS, Network, eventually, noise
from .test_faulty_sources import evil_peer
from .test_http_server import answer, connected, downloader_source, shared, wanted
from .test_swarm_download import fetch

MIB = 1024 * 1024
CONTENT = ContentId(bytes(32))
CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[KeepingTracer]:
    """Traces are on; serving counts as over soon."""
    monkeypatch.setattr(serve_spans, "IDLE_SECONDS", 0.05)
    with keeping_spans() as tracer:
        yield tracer


async def served(spans: KeepingTracer, count: int = 1) -> list[KeptSpan]:
    """The spans of serving, once there are that many and all have ended."""

    def found() -> list[KeptSpan]:
        return [span for span in spans.spans if span.name == "serve chunks"]

    await eventually(lambda: len(found()) >= count and all(span.ended for span in found()), "the spans have ended")
    return found()


async def test_a_download_is_a_span_with_one_for_each_source_and_one_for_each_that_serves(
    spans: KeepingTracer, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By either path: the serving peer's is below the downloader's own for that source, and has the sums."""
    # A pause is no end here, however slow the machine is: each of them would be a span.
    monkeypatch.setattr(serve_spans, "IDLE_SECONDS", LIMIT_SECONDS)
    data = noise(16 * MIB)
    seeds = [await network.peer(f"seed{number}") for number in range(2)]
    for seed in seeds:
        network.directory.holds(await seed.shares("file.bin", data), seed.source)
    downloader = await network.peer("downloader")
    spans.spans.clear()
    with tracing.span("command") as command:
        await fetch(downloader, "file.bin")
    download = spans.one("download")
    assert download.parent == tracing.traceparent_of(command)
    assert download.attributes["minga.file.name"] == "file.bin"
    assert download.attributes["minga.download.outcome"] == "done"
    assert download.attributes["file.size"] == len(data)
    assert download.attributes["minga.download.bytes_by_kind.complete"] == len(data)
    assert download.attributes["minga.download.sources"] == 2
    busy = [seed.serving for seed in seeds]
    await eventually(lambda: not any(one.active_count + one.waiting_count for one in busy), "nothing is served")
    for one in busy:
        one.close()
    serving = await served(spans, 2)
    sources = [span for span in spans.spans if span.name == "fetch chunks"]
    assert {span.attributes["minga.peer.id"] for span in sources} == {"seed0", "seed1"}
    for source in sources:
        assert (source.kind, source.parent, source.ended) == ("client", download.traceparent, True)
        # More than came when a second request was broken off at the end.
        below = [span for span in serving if span.parent == source.traceparent]
        assert {(span.kind, span.attributes["minga.peer.id"]) for span in below} == {("server", "downloader")}
        chunks = sum(span.attributes["minga.serve.chunks"] for span in below)
        assert chunks >= source.attributes["minga.source.chunks"]
        sent_bytes = sum(span.attributes["minga.serve.sent_bytes"] for span in below)
        assert sent_bytes >= source.attributes["minga.source.received_bytes"]
        assert source.attributes["minga.source.received_bytes"] > 0
    assert sum(span.attributes["minga.source.received_bytes"] for span in sources) == len(data)
    assert spans.one("put in place").parent == download.traceparent
    # Nothing for each chunk: of those there are 64.
    assert len(spans.spans) < 32


@pytest.mark.parametrize(
    ("behaviour", "event"), [("flips a bit", "chunk refused"), ("stalls in the middle", "second request")]
)
async def test_what_goes_wrong_with_a_source_is_an_event_of_its_span(
    spans: KeepingTracer, network: Network, behaviour: str, event: str
) -> None:
    """A chunk that is refused, a source that is dropped, a second request because the first is late."""
    seed, downloader = await network.peer("seed"), await network.peer("downloader")
    data = noise(3 * MIB)
    row = await seed.shares("file.bin", data)
    manifest = await seed.store.manifest(row.key.content_id)
    async with evil_peer(data, manifest, behaviour) as (evil, _):
        network.directory.holds(row, evil)
        network.directory.holds(row, seed.source)
        with tracing.span("command"):
            await fetch(downloader, "file.bin")
    assert spans.one("download").attributes["minga.download.outcome"] == "done"
    events = {name for span in spans.spans if span.name == "fetch chunks" for name in span.events}
    assert event in events
    if behaviour == "flips a bit":
        assert "source dropped" in events


async def test_a_download_that_fails_says_why(spans: KeepingTracer, network: Network) -> None:
    """And ends its span."""
    seed, downloader = await network.peer("seed"), await network.peer("downloader")
    row = await seed.shares("file.bin", noise(MIB))
    network.directory.holds(row, downloader_source(1))
    with pytest.raises(NoSourcesError):
        await fetch(downloader, "file.bin", source_wait=timedelta(seconds=0.1))
    download = spans.one("download")
    assert download.error == download.attributes["minga.download.outcome"] == "no_sources"
    assert all(span.ended for span in spans.spans if span.name != "minga.peer.v1.PeerService/GetManifest")


@pytest.mark.parametrize("traceparent", [b"x" * 8000, CALLER[:-2].encode() + b"00"])
async def test_an_odd_traceparent_gets_its_chunk_and_no_span(
    spans: KeepingTracer, network: Network, traceparent: bytes
) -> None:
    """Malformed, or of a trace that is not sampled."""
    seed, content_id, _ = await shared(network, MIB)
    async with connected(seed) as (reader, writer):
        request = wanted(content_id, (0, 4)).removesuffix(b"\r\n") + b"Traceparent: " + traceparent + b"\r\n\r\n"
        writer.write(request)
        said = await answer(reader)
        assert said.index is not None  # type: ignore[union-attr]
        await reader.readexactly(said.size_bytes)  # type: ignore[union-attr]
    assert not [span for span in spans.spans if span.name == "serve chunks"]


# Serving, by itself.


async def test_requests_of_one_caller_are_one_span(spans: KeepingTracer) -> None:
    """Until none came for a while; what is asked after that is another."""
    serving = ServeSpans(SystemClock())
    for chunk in range(3):
        request = serving.request(CALLER, CONTENT, downloader_source(1))
        assert request is not None
        request.granted()
        request.ended(100 * chunk)
    (first,) = await served(spans)
    assert first.parent == CALLER
    assert {name: first.attributes[f"minga.serve.{name}"] for name in ("requests", "chunks", "sent_bytes")} == {
        "requests": 3,
        "chunks": 2,
        "sent_bytes": 300,
    }
    again = serving.request(CALLER, CONTENT, None)
    assert again is not None
    again.busy()
    again.ended(0)
    serving.close()
    assert [span.attributes["minga.serve.busy_answers"] for span in await served(spans)] == [0, 1]


async def test_a_long_span_of_serving_is_cut(spans: KeepingTracer, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a trace shows progress; each request is counted once."""
    monkeypatch.setattr(serve_spans, "LONGEST_SECONDS", 0.1)
    serving = ServeSpans(SystemClock())
    first = serving.request(CALLER, CONTENT, None)
    assert first is not None
    second = serving.request(CALLER, CONTENT, None)
    assert second is not None
    second.ended(1)
    await eventually(lambda: any(span.ended for span in spans.spans), "the first part has ended")
    first.ended(10)
    serving.close()
    parts = await served(spans)
    assert sum(span.attributes["minga.serve.sent_bytes"] for span in parts) == 11
    assert sum(span.attributes["minga.serve.requests"] for span in parts) == 2
    assert {span.parent for span in parts} == {CALLER}


async def test_callers_are_not_remembered_without_limit(spans: KeepingTracer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that makes up traceparents ends the oldest span, and uses no more memory."""
    monkeypatch.setattr(serve_spans, "MAX_OPEN", 4)
    serving = ServeSpans(SystemClock())
    for number in range(1, 20):
        request = serving.request(f"00-{number:032x}-{number:016x}-01", CONTENT, None)
        assert request is not None
        request.ended(1)
        assert sum(not span.ended for span in spans.spans) <= 4
    serving.close()
    assert all(span.ended for span in spans.spans)
