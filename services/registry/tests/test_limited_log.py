"""No peer can fill the registry's log."""

import logging

import pytest

from minga_core.clock import ManualClock
from minga_registry.limited_log import LINES, LINES_EACH, WINDOW_SECONDS, LimitedLog


def test_a_host_that_floods_the_log_silences_itself_alone(caplog: pytest.LogCaptureFixture) -> None:
    """And what it did is said as a number."""
    caplog.set_level(logging.INFO)
    clock = ManualClock()
    limited = LimitedLog(logging.getLogger("registry"), clock)
    for _ in range(1000):
        limited.event(logging.INFO, "peer_registered", "10.0.0.1")
    limited.event(logging.INFO, "peer_registered", "10.0.0.2")
    assert len(caplog.records) == LINES_EACH + 1
    clock.advance(WINDOW_SECONDS)
    limited.event(logging.INFO, "peer_registered", "10.0.0.1")
    assert [record.getMessage() for record in caplog.records[-2:]] == ["log_lines_left_out", "peer_registered"]
    assert vars(caplog.records[-2])["fields"] == {"count": 1000 - LINES_EACH}


def test_any_number_of_hosts_fills_neither_log_nor_memory(caplog: pytest.LogCaptureFixture) -> None:
    """As the addresses of IPv6 networks."""
    caplog.set_level(logging.INFO)
    limited = LimitedLog(logging.getLogger("registry"), ManualClock())
    for number in range(LINES + 1000):
        limited.event(logging.INFO, "peer_registered", str(number))
    assert len(caplog.records) == LINES
    assert len(limited._lines) == LINES
