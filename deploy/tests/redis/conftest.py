"""Prints what was measured, and loudly what is missing on this machine."""

import pytest

from deploy.tests.redis.programs import FOUND
from deploy.tests.redis.reporting import FIGURES


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """At the end of the run."""
    missing = [name for name, program in FOUND.items() if program is None]
    if missing:
        terminalreporter.section("TESTS ON THESE DID NOT RUN", sep="!", red=True, bold=True)
        terminalreporter.write_line(", ".join(missing))
    if figures := config.stash.get(FIGURES, []):
        terminalreporter.section("measured")
        for line in figures:
            terminalreporter.write_line(line)
