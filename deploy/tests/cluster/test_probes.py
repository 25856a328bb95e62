"""Verdicts of probes: thresholds in a row."""

import pytest

from deploy.tests.cluster.podspec import Probe, TcpCheck
from deploy.tests.cluster.probes import Verdicts


def probe(success: int = 1, failure: int = 3) -> Probe:
    return Probe(TcpCheck(1), 0, 1, 1, success, failure)


@pytest.mark.parametrize(
    ("outcomes", "verdicts"),
    [
        ("-", "-"),
        ("+", "+"),
        ("+--", "+++"),
        ("+---", "+++-"),
        ("+--+--", "++++++"),
        ("+---+", "+++-+"),
    ],
)
def test_readiness_is_lost_after_three_failures_in_a_row_and_back_with_one_success(
    outcomes: str, verdicts: str
) -> None:
    """Not ready until the first success."""
    found = Verdicts(probe(), False)
    seen = ""
    for outcome in outcomes:
        found.told(outcome == "+")
        seen += "+" if found.verdict else "-"
    assert seen == verdicts


def test_a_threshold_of_successes_counts_from_the_last_failure() -> None:
    """Two in a row."""
    found = Verdicts(probe(success=2), False)
    assert [found.told(good) for good in (True, False, True, True)] == [False, False, False, True]


def test_there_is_no_verdict_on_a_start_before_a_threshold() -> None:
    """Two failures of three say nothing."""
    found = Verdicts(probe(), None)
    assert [found.told(False), found.verdict] == [False, None]
    assert [found.told(False), found.told(False), found.verdict] == [False, True, False]
