"""Fixtures: Prometheus' programs, or a loud word that they are missing, and a network that one of them watches."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from deploy.tests.monitoring.promtool import Promtool
from deploy.tests.monitoring.watched import Watched, watched_network

_MISSING = pytest.StashKey[str]()


@pytest.fixture(scope="session")
def prometheus_binary(request: pytest.FixtureRequest) -> Path:
    """The server; tests skip where it is not installed."""
    return _program(request, "prometheus")


@pytest.fixture(scope="session")
def promtool(request: pytest.FixtureRequest) -> Promtool:
    """The checker; tests skip where it is not installed."""
    return Promtool(_program(request, "promtool"))


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def watched(prometheus_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Watched]:
    """A network of three peers on which everything has happened once, and the Prometheus that saw it."""
    async with watched_network(prometheus_binary, tmp_path_factory.mktemp("watched")) as watched:
        yield watched


def _program(request: pytest.FixtureRequest, name: str) -> Path:
    found = shutil.which(name)
    if found is None:
        reason = f"{name} is not installed; Debian has it in the package prometheus"
        request.config.stash[_MISSING] = reason
        pytest.skip(reason)
    return Path(found)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Tests that did not run must not look like tests that passed."""
    reason = config.stash.get(_MISSING, None)
    if reason is not None:
        terminalreporter.section("MONITORING TESTS DID NOT RUN", sep="!", red=True, bold=True)
        terminalreporter.write_line(reason, red=True)
