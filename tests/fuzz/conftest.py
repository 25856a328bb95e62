"""The network that is attacked: one for all attacks of the session."""

from collections.abc import Iterator

import pytest

from tests.fuzz.target import Target, running


@pytest.fixture(scope="session")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A running network."""
    with running(tmp_path_factory.mktemp("fuzz") / "net") as target:
        yield target
