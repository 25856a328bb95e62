"""The clock that times of files are compared with."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from minga_peer.share.file_clock import FileClock

DAY_NS = 86_400 * 10**9
MINUTE_NS = 60 * 10**9


@pytest.mark.parametrize("off_ns", [-DAY_NS, 0, DAY_NS])
def test_a_clock_that_differs_from_the_file_servers_makes_no_file_older_or_newer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, off_ns: int
) -> None:
    true_ns: Callable[[], int] = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: true_ns() + off_ns)
    clock = FileClock()
    clock.measure(tmp_path)
    file = tmp_path / "file"
    file.touch()
    assert abs(clock.now_ns() - file.stat().st_ctime_ns) < MINUTE_NS


def test_without_a_file_the_clocks_count_as_equal(tmp_path: Path) -> None:
    clock = FileClock()
    clock.measure(tmp_path / "missing")
    assert abs(clock.now_ns() - time.time_ns()) < MINUTE_NS
