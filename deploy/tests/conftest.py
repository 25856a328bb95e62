"""The engine that tests of containers need, or a loud word that there is none."""

import os
from collections.abc import Iterator

import pytest

from deploy.tests.support.engine import Engine

_NO_ENGINE = pytest.StashKey[bool]()


@pytest.fixture(scope="session")
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """A Docker Engine that has `minga/{registry,locator,peer}:dev`, as `make` found and filled it; else tests skip."""
    host = os.environ.get("DOCKER_HOST")
    if not host:
        request.config.stash[_NO_ENGINE] = True
        pytest.skip("no Docker Engine")
    engine = Engine(host)
    yield engine
    engine.close()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Tests that did not run must not look like tests that passed."""
    if config.stash.get(_NO_ENGINE, False):
        terminalreporter.section("CONTAINER TESTS DID NOT RUN", sep="!", red=True, bold=True)
        terminalreporter.write_line("make finds or installs a Docker Engine, and sets DOCKER_HOST", red=True)
