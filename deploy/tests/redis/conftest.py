"""Prints loudly what is missing on this machine."""

import pytest

from deploy.tests.redis.programs import FOUND


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """At the end of the run."""
    missing = [name for name, program in FOUND.items() if program is None]
    if missing:
        terminalreporter.section("TESTS ON THESE DID NOT RUN", sep="!", red=True, bold=True)
        terminalreporter.write_line(", ".join(missing))
