"""`minga get --explain`: what people read."""

from dataclasses import replace

import pytest

from minga import DownloadPhase, Explanation, Phase, Progress, SourceShare, WaitCause, parse_peer_id
from minga_cli.explaining import explain
from minga_engine.wire.control import MAX_SOURCES, explanation_from_pb, explanation_to_pb
from minga_protos.control.v1 import control_pb2 as pb

from .conftest import FakeDaemon, Minga

MIB = 1024 * 1024
SEED = SourceShare(
    parse_peer_id("seed"),
    complete=True,
    same_zone=True,
    received_bytes=384 * MIB,
    chunk_count=192,
    working_seconds=4.0,
)
LAB = SourceShare(
    parse_peer_id("lab-17"),
    complete=False,
    received_bytes=128 * MIB,
    chunk_count=64,
    working_seconds=4.0,
    queued_seconds=1.5,
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
    waited_seconds={WaitCause.BUSY: 1.2, WaitCause.QUEUE: 0.3},
    longest_wait_seconds=1.2,
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
        "  SOURCE    BYTES  SHARE  CHUNKS      RATE  NOTES",
        "  seed    384 MiB   75 %     192  96 MiB/s  same zone",
        "  lab-17  128 MiB   25 %      64  32 MiB/s  fetching it too, busy twice",
        "  time     5.1 s: 20 ms locating, 4.8 s fetching, 0.2 s sync and rename; 0.3 s more before and after it",
        "  bound    1.27 × the 4.0 s that it takes at the rate of the best second, 128 MiB/s",
        "  waited   nothing came for 1.5 s: all sources busy (1.2 s), no source had begun to send (0.3 s)"
        "; the longest pause took 1.2 s",
        "  slowest  lab-17, 32 MiB/s, 50 % of the median: it was fetching the file itself",
        "  extra    3 late chunks requested from a second source, 1 chunk came twice, 2 MiB came and were not kept",
    ]


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
        ["seed", "385", "MiB", "75", "%", "193", "96", "MiB/s"],
        ["lab-17", "128", "MiB", "25", "%", "64", "32", "MiB/s", "fetching", "it", "too,", "busy", "twice"],
        ["new", "1", "MiB", "0", "%", "1", "-"],
    ]
    assert "  together      2 small files came many in a call, without times of their own" in lines


def test_many_sources_are_summed_up_in_the_last_row(capsys: pytest.CaptureFixture[str]) -> None:
    """A screen stays a screen."""
    many = tuple(replace(LAB, peer_id=parse_peer_id(f"lab-{i}")) for i in range(40))
    lines = printed(capsys, ("a", replace(WHOLE, sources=many)))
    assert lines[13].split()[:5] == ["28", "others", "3.5", "GiB", "70"]
    assert lines[14].startswith("  time ")


def test_an_explanation_passes_through_the_contract_unchanged() -> None:
    """What the daemon saw is what the command prints."""
    troubled = replace(LAB, losses=2, corrupt_chunks=1, drops={"no progress": 2})
    found = replace(WHOLE, sources=(SEED, troubled), resumed_bytes=7, limit_rate=5.0 * MIB)
    message = pb.Explanation.FromString(explanation_to_pb(found).SerializeToString())
    assert explanation_from_pb(message) == found


def test_a_message_names_a_bounded_number_of_sources() -> None:
    """And a newer daemon's words are left out, not stumbled over."""
    many = replace(WHOLE, sources=tuple(replace(LAB, peer_id=parse_peer_id(f"lab-{i}")) for i in range(200)))
    message = explanation_to_pb(many)
    message.phase_seconds["dreaming"] = 1.0
    found = explanation_from_pb(message)
    assert len(found.sources) == MAX_SOURCES
    assert found.phase_seconds == WHOLE.phase_seconds


def test_get_explains_when_asked(minga_with_daemon: Minga, daemon: FakeDaemon) -> None:
    """After the usual line, and only then."""
    daemon.contents, daemon.explanation = {"a": b"x", "b": b"x"}, explanation_to_pb(WHOLE)
    assert len(minga_with_daemon("get", "a").out.splitlines()) == 1
    lines = minga_with_daemon("get", "b", "--explain").out.splitlines()
    assert lines[0].startswith("b: 1 B in ")
    assert lines[1].startswith("  SOURCE ")
