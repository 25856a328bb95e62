"""Fixtures of every suite here: the engine, or a loud word that there is none, and our images on it."""

from collections.abc import Iterator

import pytest

from deploy.tests.support.engine import Engine, NoEngineError, build_images, find_engine, running_engine

TEST_SECONDS = 120
_NO_ENGINE = pytest.StashKey[str]()


@pytest.fixture(scope="session")
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """A Docker Engine; tests skip where there is none. What they make on it is removed at the end."""
    try:
        find_engine()
    except NoEngineError as error:
        request.config.stash[_NO_ENGINE] = str(error)
        pytest.skip(str(error))
    with running_engine() as engine:
        yield engine


@pytest.fixture(scope="session")
def images(engine: Engine) -> Engine:
    """The engine, with our images of this very source on it: `minga/{registry,locator,peer}:dev`."""
    build_images(engine)
    return engine


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The limit of a test is for the test: the first fixture may install an engine and build images on it, and every
    call of those has its own limit."""
    for item in items:
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(TEST_SECONDS, func_only=True))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Tests that did not run must not look like tests that passed."""
    reason = config.stash.get(_NO_ENGINE, None)
    if reason is not None:
        count = len(terminalreporter.stats.get("skipped", []))
        terminalreporter.section("CONTAINER TESTS DID NOT RUN", sep="!", red=True, bold=True)
        terminalreporter.write_line(f"{count} skipped: {reason}", red=True)
