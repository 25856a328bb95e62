"""Prometheus' programs, or a loud word that they are missing, and a network that one of them watches."""

import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from deploy.tests.monitoring.watched import Watched, watched_network
from deploy.tests.support.engine import run_command

_MISSING = pytest.StashKey[str]()
Promtool = Callable[..., str]


@pytest.fixture(scope="session")
def promtool(request: pytest.FixtureRequest) -> Promtool:
    """Runs promtool; what it prints. Fails the test with it when promtool finds anything."""
    binary = _program(request, "promtool")

    def check(*words: str | Path, stdin: str = "") -> str:
        ended = run_command([binary, *map(str, words)], stdin=stdin.encode())
        return ended.out + ended.err

    return check


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def watched(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Watched]:
    """A network of three peers on which everything has happened once, and the Prometheus that saw it."""
    async with watched_network(_program(request, "prometheus"), tmp_path_factory.mktemp("watched")) as watched:
        yield watched


def _program(request: pytest.FixtureRequest, name: str) -> str:
    found = shutil.which(name)
    if found is None:
        reason = f"{name} is not installed; Debian has it in the package prometheus"
        request.config.stash[_MISSING] = reason
        pytest.skip(reason)
    return found


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Tests that did not run must not look like tests that passed."""
    if reason := config.stash.get(_MISSING, None):
        terminalreporter.section("MONITORING TESTS DID NOT RUN", sep="!", red=True, bold=True)
        terminalreporter.write_line(reason, red=True)
