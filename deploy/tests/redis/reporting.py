"""Figures that tests have measured, for the end of the run: `make redis-test` prints them."""

import pytest

FIGURES = pytest.StashKey[list[str]]()


def report(request: pytest.FixtureRequest, figures: str) -> None:
    """Has one line printed at the end."""
    request.config.stash.setdefault(FIGURES, []).append(f"{request.node.name}: {figures}")
