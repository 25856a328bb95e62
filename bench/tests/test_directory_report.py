"""Results of the directory's benchmark: kept, read again, told; and the arithmetic below them."""

import json
import math
import os
from pathlib import Path

import pytest

from bench.directory.report import Results, document, told_use
from bench.directory.results import RowOutcome
from bench.directory.rows.catalog import EXTRA, ROWS, TABLE
from bench.directory.scale import SCALES
from bench.directory.stats import millis, percentile, summary
from bench.directory.usage import Meter, Part, Use


def an_outcome() -> RowOutcome:
    """With a figure met, one missed, and one for information."""
    outcome = RowOutcome("lookups", "Some names.")
    outcome.figure("this", "≥ 1", "2", met=True)
    outcome.figure("that", "≤ 1", "2", met=False)
    outcome.told("cost", "1 µs")
    outcome.uses.append(Use("work", 2.0, [Part("a", 1.0, 0.5, 10), Part("b", 1.9, 0.95, 10)], 0.25, 0.01))
    outcome.notes.append("Be careful.")
    outcome.details["key_kinds"] = [{"kind": "table", "keys": 1, "bytes_in_all": 100, "bytes_an_entry": 10.0}]
    return outcome


def test_results_are_kept_by_scale_and_row(tmp_path: Path) -> None:
    """What is read again is what was kept."""
    results = Results({"processor": "x"}, {"python": "3"})
    results.keep("everyday", an_outcome(), "today at c0ffee")
    results.save(tmp_path / "r.json")
    again = Results.load(tmp_path / "r.json")
    assert again == results
    assert json.loads((tmp_path / "r.json").read_text())["measured"]["everyday"]["lookups"] == "today at c0ffee"


def test_the_document_tells_wanted_beside_measured_and_who_was_busy() -> None:
    """Misses are told as misses; what costs what is told too."""
    results = Results({"processor": "x"}, {"python": "3"})
    results.keep("everyday", an_outcome(), "today at c0ffee")
    text = document(results, list(SCALES), list(ROWS))
    assert "1 of 2 figures are met." in text
    assert "| that | ≤ 1 | 2 | **missed** |" in text
    assert "b 95%, a 50%" in text
    assert "today at c0ffee" in text
    assert "| table | 1 | 0.0 MB | 10.0 |" in text
    assert "Scale: full" not in text


def test_the_busiest_process_stands_first() -> None:
    """It is the one to look at."""
    (use,) = an_outcome().uses
    assert use.busiest.name == "b"
    assert told_use(use).strip() == "work: b 95%, a 50%; machine 25% idle, others 1%"


def test_every_row_has_a_name_of_its_own() -> None:
    """They are keys of the results file."""
    assert len(ROWS) == len(TABLE) + len(EXTRA)


def test_a_percentile_is_a_value_that_was_measured() -> None:
    """The nearest rank."""
    values = list(range(1, 101))
    assert percentile(values, 0.5) == 50
    assert percentile(values, 0.99) == 99
    assert percentile([7.0], 0.99) == 7.0
    assert math.isnan(percentile([], 0.5))
    assert summary([]) == {"count": 0}
    assert summary([3.0, 1.0, 2.0])["max"] == 3.0


@pytest.mark.parametrize(("seconds", "text"), [(0.0123, "12.3 ms"), (0.5, "500 ms"), (1.5, "1,500 ms")])
def test_durations_are_told_in_milliseconds(seconds: float, text: str) -> None:
    """With three digits, or whole ones."""
    assert millis(seconds) == text


def test_a_meter_sees_this_process_at_work() -> None:
    """And leaves out what has ended."""
    meter = Meter({"me": os.getpid()})
    used = sum(i * i for i in range(3_000_000))
    use = meter.read("sums")
    assert used > 0
    assert use.share("me") > 0
    assert use.cpu_seconds("me") > 0
    assert use.parts[0].memory_bytes > 1_000_000
