"""What is kept of a run, and the documents that are made of it."""

import os
from pathlib import Path

import pytest

from bench.directory.run import RESULTS as DIRECTORY_RESULTS
from bench.directory.run import main as directory_main
from bench.race import Race
from bench.report import DIRECTORY_METHOD, DIRECTORY_TITLE, SWARM_METHOD, SWARM_TITLE, document
from bench.results import Figure, Outcome, RaceRecord, keep, load
from bench.run import DOCS, RESULTS, changed, main
from bench.scenarios.catalog import SCENARIOS
from bench.scenarios.source_dies import seconds_until_back
from bench.scenarios.swarm import Swarm
from bench.usage import Meter, Use
from minga_core.errors import InvalidArgumentError

MIB = 1 << 20


def a_race(system: str = "minga", last: float = 2.0) -> Race:
    """Two downloaders of 1 MiB."""
    return Race(
        system,
        finished={"p02": last, "p01": 1.5},
        sent_bytes={"seed": 3 * MIB // 2, "p01": 0, "p02": 0, "control": 5},
        received_bytes={"seed": 0, "p01": MIB, "p02": MIB, "control": 5},
        cpu_seconds={"seed": 0.5, "p01": 0.25, "p02": 0.25, "control": 100.0},
        peak_bytes={"seed": 10, "p01": 30, "p02": 20, "control": 1000},
        idle_share=0.5,
    )


def an_outcome() -> Outcome:
    """One scenario with a figure met, one missed, one for information."""
    return Outcome(
        "swarm-16",
        "a setting",
        measured="today at c0ffee",
        figures=[Figure("this", "≤ 1", "0.5", True), Figure("that", "≤ 1", "1.5", False), Figure("rival", "", "2")],
        races=[RaceRecord.of(a_race(), MIB, 1.0), RaceRecord.of(a_race("aria2", 4.0), MIB, 1.0)],
    )


def test_record_counts_all_hosts_but_the_control_host() -> None:
    """Cost per GiB that was delivered; the greatest memory of one host."""
    record = RaceRecord.of(a_race(), MIB, 1.0)
    assert record.finished_seconds == [1.5, 2.0]
    assert record.ratio == 2.0
    assert record.seed_copies == 1.5
    assert record.received_copies == 1.0
    assert record.cpu_seconds_per_gib == pytest.approx(512.0)
    assert record.peak_bytes == 30


def test_results_file_has_one_line_for_each_scenario_and_scale(tmp_path: Path) -> None:
    """A new outcome replaces that of the same scenario and scale."""
    path = tmp_path / "results.jsonl"
    assert load(path) == []
    full = Outcome("swarm-16", "another", scale="full", uses=[Use("work", 2.0, {"a": 0.5}, 0.25, 0.01)])
    for outcome in (Outcome("swarm-16", "old"), full, an_outcome(), Outcome("scale", "first")):
        keep(path, outcome, ["scale", "swarm-16"])
    assert load(path) == [Outcome("scale", "first"), an_outcome(), full]
    assert len(path.read_text().splitlines()) == 3


def test_document_shows_wanted_beside_measured() -> None:
    """Misses are shown as misses, and systems that raced beside each other."""
    text = document("# Title", "method", [an_outcome()], ["swarm-16"])
    assert "1 of 2 figures are met." in text
    assert "| that | ≤ 1 | 1.5 | **missed** |" in text
    assert "| aria2 | 4.00 s | 4.00 |" in text
    assert "today at c0ffee" in text
    assert "benchmarks/swarm-16.svg" in text


@pytest.mark.parametrize(
    ("page", "results", "title", "method"),
    [
        ("benchmarks.md", RESULTS, SWARM_TITLE, SWARM_METHOD),
        ("benchmarks-directory.md", DIRECTORY_RESULTS, DIRECTORY_TITLE, DIRECTORY_METHOD),
    ],
)
def test_documents_are_made_of_the_kept_results(page: str, results: Path, title: str, method: str) -> None:
    """A document that was edited by hand, or not made anew, is found."""
    outcomes = load(results)
    plots = [each.scenario for each in outcomes if (DOCS / "benchmarks" / f"{each.scenario}.svg").exists()]
    assert (DOCS / page).read_text() == document(title, method, outcomes, plots)


def test_meter_measures_this_process() -> None:
    """Processor time of a process that works."""
    meter = Meter({"me": os.getpid()})
    assert sum(i * i for i in range(3_000_000))
    use = meter.read("sums", ended=1.0)
    assert use.cpu_seconds("me") > 0
    assert use.cpu_seconds("ended") == pytest.approx(1.0, rel=0.05)


def test_rate_is_back_at_once_when_it_never_left() -> None:
    """Ten bytes a second throughout."""
    assert seconds_until_back([(i / 10, i) for i in range(100)], 2.0, 8.0) == 0.0


def test_rate_is_back_when_the_lull_ends() -> None:
    """Nothing arrives for a second; half a second that begins in it is slow until most of it lies behind the lull."""
    samples = [(i / 10, min(i, 20) + max(0, i - 30)) for i in range(100)]
    assert seconds_until_back(samples, 2.0, 8.0) == pytest.approx(0.8, abs=0.11)


def test_rate_that_stays_low_is_never_back() -> None:
    """One byte a second after the kill."""
    samples = [(i / 10, i if i < 20 else 20 + (i - 20) // 10) for i in range(100)]
    assert seconds_until_back(samples, 2.0, 8.0) == float("inf")


def test_options_change_a_scenarios_own_fields_alone() -> None:
    """Anything else is refused by name."""
    assert changed(Swarm(), {"peers": 4, "rate": None, "size": MIB}) == Swarm(peers=4, size=MIB)
    with pytest.raises(InvalidArgumentError, match="tiny-file has no --peers"):
        changed(SCENARIOS["tiny-file"], {"peers": 4})


@pytest.mark.parametrize(
    ("words", "ignored"),
    [
        ("all --only swarm-16 --size 1MiB", "--size"),
        ("all --peers 3", "--peers"),
        ("all --rate 10", "--rate"),
        ("all --json x", "--json"),
        ("swarm --only swarm-16", "--only"),
        ("check --secure", "--secure"),
    ],
)
def test_an_option_without_effect_is_refused(words: str, ignored: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is measured that somebody would take for what was asked for."""
    with pytest.raises(SystemExit, match="2"):
        main(words.split())
    assert f"{ignored} has no effect" in capsys.readouterr().err


def test_the_directorys_benchmark_refuses_such_options_too(capsys: pytest.CaptureFixture[str]) -> None:
    """Networks are secure by the choice of all scenarios alone."""
    with pytest.raises(SystemExit, match="2"):
        directory_main(["lookups", "--secure"])
    assert "--secure has no effect" in capsys.readouterr().err


def test_check_is_skipped_loudly_where_no_lab_can_be(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 0 for the check, 1 for a measurement."""
    monkeypatch.setattr("bench.run.why_no_lab", lambda: "no root")
    assert main(["check"]) == 0
    assert "SKIPPED" in capsys.readouterr().err
    assert main(["swarm-16"]) == 1
