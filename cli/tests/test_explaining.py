"""`minga get --explain`: what people read."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from minga_cli.explaining import explain, span
from minga_core.ids import parse_peer_id
from minga_engine.explanation import Explanation, Phase, SourceShare, TransferPath, WaitCause
from minga_engine.progress import DownloadPhase, Progress
from minga_engine.wire.explanation import MAX_SOURCES, explanation_from_pb, explanation_to_pb
from minga_protos.control.v1 import control_pb2 as pb

from .conftest import Minga

MIB = 1024 * 1024
SEED = SourceShare(
    parse_peer_id("seed"),
    same_zone=True,
    received_bytes=384 * MIB,
    chunk_count=192,
    working_seconds=4.0,
    bytes_by_path={TransferPath.GRPC: 128 * MIB, TransferPath.BULK: 256 * MIB},
)
LAB = SourceShare(
    parse_peer_id("lab-17"),
    complete=False,
    received_bytes=128 * MIB,
    chunk_count=64,
    working_seconds=4.0,
    queued_seconds=1.5,
    bytes_by_path={TransferPath.GRPC: 128 * MIB},
    busy_answers=2,
)
WHOLE = Explanation(
    seconds=5.1,
    size_bytes=512 * MIB,
    wasted_bytes=2 * MIB,
    hedges=3,
    duplicates=1,
    sources=(SEED, LAB),
    phase_seconds={Phase.LOCATING: 0.02, Phase.MANIFEST: 0.001, Phase.FETCHING: 4.8, Phase.FINISHING: 0.25},
    waited_seconds={WaitCause.BUSY: 1.2, WaitCause.TURN: 0.3},
    longest_wait_seconds=1.2,
    longest_wait_cause=WaitCause.BUSY,
    best_rate=128.0 * MIB,
)


def done(explanation: Explanation | None, received: dict[str, int] | None = None) -> Progress:
    """The last progress of a download."""
    by_source = {parse_peer_id(source): count for source, count in (received or {}).items()}
    return Progress(DownloadPhase.DONE, 512 * MIB, 512 * MIB, 0, by_source, explanation=explanation)


def printed(capsys: pytest.CaptureFixture[str], *found: tuple[str, Explanation], seconds: float = 0.0) -> list[str]:
    """The lines that it prints."""
    explain([(name, done(explanation)) for name, explanation in found], seconds)
    return capsys.readouterr().out.splitlines()


def test_one_download_is_explained_in_aligned_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """Sources, time, bound, waits, the slowest source, and what was done for nothing."""
    assert printed(capsys, ("data.bin", WHOLE), seconds=5.4) == [
        "  SOURCE    BYTES  SHARE  CHUNKS      RATE  BY          NOTES",
        "  seed    384 MiB   75 %     192  96 MiB/s  grpc, bulk  same zone",
        "  lab-17  128 MiB   25 %      64  32 MiB/s  grpc        fetching it too, busy twice",
        "  time     5.1 s: 20 ms locating, 4.8 s fetching, 0.2 s sync and rename; 0.3 s more before and after it",
        "  bound    1.27 × the 4.0 s that it takes at the rate of the best second, 128 MiB/s",
        "  waited   nothing came for 1.5 s: all sources busy (1.2 s), no source had begun to send (0.3 s)"
        "; the longest pause took 1.2 s",
        "  slowest  lab-17, 32 MiB/s, 50 % of the median: it was fetching the file itself",
        "  extra    3 late chunks asked of a second source, 1 chunk came twice, 2 MiB came and were not kept",
    ]


def test_what_there_is_nothing_to_say_of_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    """A smooth download from one source is four lines."""
    smooth = replace(WHOLE, sources=(SEED,), waited_seconds={}, hedges=0, duplicates=0, wasted_bytes=0)
    assert [line.split()[0] for line in printed(capsys, ("a", smooth))] == ["SOURCE", "seed", "time", "bound"]


def test_the_download_limit_is_named_as_the_bound(capsys: pytest.CaptureFixture[str]) -> None:
    """When it is what held."""
    limited = replace(WHOLE, limit_rate=100.0 * MIB, waited_seconds={WaitCause.LIMIT: 1.2})
    lines = printed(capsys, ("a", limited))
    assert "  bound    1.05 × the 4.9 s that it takes at the download limit of 100 MiB/s" in lines
    assert "  waited   nothing came for 1.2 s: held back by the download limit" in lines


def test_several_downloads_are_summed_up_and_the_slowest_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    """Bytes by source over all files; no bound, since they ran side by side."""
    small = replace(WHOLE, seconds=0.2, size_bytes=MIB, sources=(replace(LAB, received_bytes=MIB),), waited_seconds={})
    lines = printed(capsys, ("set/a", small), ("set/big", WHOLE), ("set/c", small))
    assert lines[2].split()[:3] == ["lab-17", "130", "MiB"]
    assert "RATE A FILE" in lines[0]
    assert "  slowest file  set/big, 512 MiB in 5.1 s, 4.8 s of it fetching" in lines
    assert any(line.startswith("  waited        nothing came for 1.5 s, added up over all files: ") for line in lines)
    assert not any("bound" in line for line in lines)


def test_small_files_that_came_in_one_call_are_told_by_source(capsys: pytest.CaptureFixture[str]) -> None:
    """They have no time of their own: no rate is made up for a source that sent little else."""
    explain([("a", done(WHOLE)), ("b", done(None, {"seed": MIB})), ("c", done(None, {"new": MIB})), ("d", done(None))])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[1:4]] == [
        ["seed", "385", "MiB", "75", "%", "193", "96", "MiB/s", "grpc,", "bulk"],
        ["lab-17", "128", "MiB", "25", "%", "64", "32", "MiB/s", "grpc", "fetching", "it", "too,", "busy", "twice"],
        ["new", "1", "MiB", "0", "%", "1", "-", "grpc"],
    ]
    assert "  together      2 small files came many in a call, without times of their own" in lines


def test_many_sources_are_summed_up_in_the_last_row(capsys: pytest.CaptureFixture[str]) -> None:
    """A screen stays a screen."""
    crowd = tuple(replace(LAB, peer_id=parse_peer_id(f"lab-{i}")) for i in range(40))
    lines = printed(capsys, ("a", replace(WHOLE, sources=crowd)))
    assert lines[13].split()[:5] == ["28", "others", "3.5", "GiB", "70"]
    assert lines[14].startswith("  time ")


def test_nothing_fetched_is_said_so(capsys: pytest.CaptureFixture[str]) -> None:
    """All was there already."""
    assert printed(capsys) == ["  nothing had to be fetched"]


@pytest.mark.parametrize(("seconds", "text"), [(0.0, "0 ms"), (0.0123, "12 ms"), (0.42, "0.4 s"), (75, "1 min 15 s")])
def test_short_durations_for_people(seconds: float, text: str) -> None:
    """Milliseconds where tenths of a second would say nothing."""
    assert span(seconds) == text


def test_an_explanation_passes_through_the_contract_unchanged() -> None:
    """What the daemon saw is what the command prints."""
    troubled = replace(LAB, losses=2, corrupt_chunks=1, drops={"no progress": 2})
    found = replace(WHOLE, sources=(SEED, troubled), resumed_bytes=7, limit_rate=5.0 * MIB)
    message = pb.Explanation.FromString(explanation_to_pb(found).SerializeToString())
    assert explanation_from_pb(message) == found


def test_a_message_names_a_bounded_number_of_sources() -> None:
    """And a newer daemon's words are left out, not stumbled over."""
    crowd = replace(WHOLE, sources=tuple(replace(LAB, peer_id=parse_peer_id(f"lab-{i}")) for i in range(200)))
    message = explanation_to_pb(crowd)
    message.phases.add(phase=99)  # type: ignore[arg-type]
    message.waits.add(cause=99)  # type: ignore[arg-type]
    found = explanation_from_pb(message)
    assert len(found.sources) == MAX_SOURCES
    assert found.phase_seconds == WHOLE.phase_seconds


class ExplainedTransfers:
    """Stands for TransferClient."""

    def __init__(self, locator: Any, settings: Any) -> None:
        """Takes what the real one takes."""

    async def __aenter__(self) -> "ExplainedTransfers":
        return self

    async def __aexit__(self, *_: object) -> None:
        """Nothing to close."""

    async def get_small(self, targets: object, on_done: object) -> None:
        """None are small."""

    async def get(self, name: str, target: Path, *, on_progress: Callable[[Progress], None], **_: Any) -> Progress:
        await asyncio.to_thread(target.write_text, name)
        return Progress(DownloadPhase.DONE, 512 * MIB, 512 * MIB, explanation=WHOLE, path=target)


def test_get_explains_when_asked(minga: Minga, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """After the usual line, and only then."""
    monkeypatch.setattr("minga.standalone.TransferClient", ExplainedTransfers)
    plain = minga("get", "a.bin", "-o", f"{tmp_path}/", "--standalone")
    assert len(plain.out.splitlines()) == 1
    told = minga("get", "a.bin", "-o", f"{tmp_path}/", "--standalone", "--explain")
    assert told.out.startswith(plain.out.split(" in ")[0])
    assert "  SOURCE " in told.out
    assert "  bound    1.27 × " in told.out
