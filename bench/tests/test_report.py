"""What is kept, and what is told of it."""

import json
from pathlib import Path

import pytest

from bench.race import Race
from bench.report import Results, document, table, wanted_figures
from bench.results import Figure, Outcome, RaceRecord
from bench.run import changed, main, told
from bench.scenarios.catalog import SCENARIOS, TABLE
from bench.scenarios.source_dies import seconds_until_back
from bench.scenarios.swarm import Swarm
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
        [Figure("this", "≤ 1", "0.5", True), Figure("that", "≤ 1", "1.5", False), Figure("rival", "", "2")],
        [RaceRecord.of(a_race(), MIB, 1.0), RaceRecord.of(a_race("aria2", 4.0), MIB, 1.0)],
    )


def test_a_record_counts_all_hosts_but_the_control_host() -> None:
    """Cost per GiB that was delivered; the greatest memory of one host."""
    record = RaceRecord.of(a_race(), MIB, 1.0)
    assert record.finished_seconds == [1.5, 2.0]
    assert record.ratio == 2.0
    assert record.seed_copies == 1.5
    assert record.received_copies == 1.0
    assert record.cpu_seconds_per_gib == pytest.approx(512.0)
    assert record.peak_bytes == 30


def test_memory_of_a_process_that_ended_before_is_not_known() -> None:
    """A part of the truth would look like less than it was."""
    race = a_race()
    race.peak_bytes["p01"] = 0
    assert RaceRecord.of(race, MIB, 1.0).peak_bytes == 0


def test_results_survive_the_file(tmp_path: Path) -> None:
    """What is written is what is read."""
    results = Results({"processor": "x"}, {"python": "3"}, {"swarm-16": "today"}, {"swarm-16": an_outcome()})
    results.save(tmp_path / "results.json")
    assert Results.load(tmp_path / "results.json") == results
    assert Results.load(tmp_path / "none.json") == Results()


def test_the_table_has_what_was_wanted_beside_what_was_measured() -> None:
    """Misses are told as misses; what nobody wanted is not in it."""
    text = table(wanted_figures([an_outcome()]))
    assert "| this | ≤ 1 | 0.5 | met |" in text
    assert "| that | ≤ 1 | 1.5 | **missed** |" in text
    assert "rival" not in text


def test_the_document_is_made_of_the_results() -> None:
    """Every scenario that was measured is in it, with its plot where it has one."""
    results = Results({"processor": "x"}, {"python": "3"}, {"swarm-16": "today at c0ffee"}, {"swarm-16": an_outcome()})
    text = document(results, ["swarm-16", "uneven"], ["swarm-16"])
    assert "1 of 2 figures are met." in text
    assert "### swarm-16" in text
    assert "today at c0ffee" in text
    assert "benchmarks/swarm-16.svg" in text
    assert "### uneven" not in text


def test_a_plot_is_the_same_for_the_same_figures(tmp_path: Path) -> None:
    """So that a document that is made anew differs only where the results do."""
    pytest.importorskip("matplotlib", reason="plots need requirements-bench.lock")
    from bench.plots import plot_race, plottable

    (outcome,) = plottable([an_outcome(), Outcome("empty", "")])
    plot_race(outcome, tmp_path / "a.svg")
    plot_race(outcome, tmp_path / "b.svg")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_the_rate_is_back_at_once_when_it_never_left() -> None:
    """Ten bytes a second throughout."""
    assert seconds_until_back([(i / 10, i) for i in range(100)], 2.0, 8.0) == 0.0


def test_the_rate_is_back_when_the_lull_ends() -> None:
    """Nothing arrives for a second; half a second that begins in it is slow until most of it lies behind the lull."""
    samples = [(i / 10, min(i, 20) + max(0, i - 30)) for i in range(100)]
    assert seconds_until_back(samples, 2.0, 8.0) == pytest.approx(0.8, abs=0.11)


def test_a_rate_that_stays_low_is_never_back() -> None:
    """One byte a second after the kill."""
    samples = [(i / 10, i if i < 20 else 20 + (i - 20) // 10) for i in range(100)]
    assert seconds_until_back(samples, 2.0, 8.0) == float("inf")


def test_options_change_a_scenarios_own_fields_alone() -> None:
    """Anything else is refused by name."""
    assert changed(Swarm(), {"peers": 4, "rate": None, "size": MIB}) == Swarm(peers=4, size=MIB)
    with pytest.raises(InvalidArgumentError, match="tiny-file has no --peers"):
        changed(SCENARIOS["tiny-file"], {"peers": 4})


def test_every_scenario_of_the_table_has_a_name_of_its_own() -> None:
    """They are keys of the results file."""
    assert len({scenario.name for scenario in TABLE}) == len(TABLE)


def test_the_check_is_skipped_loudly_where_no_lab_can_be(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 0 for the check, 1 for a measurement."""
    monkeypatch.setattr("bench.run.why_no_lab", lambda: "no root")
    assert main(["check"]) == 0
    assert "SKIPPED" in capsys.readouterr().err
    assert main(["swarm-16"]) == 1


def test_a_line_says_whether_a_figure_was_met() -> None:
    """For people and for grep."""
    assert told(Figure("this", "≤ 1", "2", False)) == "MISSED  this: 2  (wanted: ≤ 1)"
    assert told(Figure("rival", "", "2")) == "        rival: 2"


def test_an_outcome_is_plain_json() -> None:
    """It is kept in git."""
    outcome = an_outcome()
    assert Outcome.from_json(json.loads(json.dumps(outcome.to_json()))) == outcome
    assert outcome.ratio("aria2") == 4.0
    assert outcome.ratio("nginx") is None
