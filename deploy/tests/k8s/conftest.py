"""The combinations that every check looks at."""

import pytest

from deploy.tests.k8s.rendering import every_combination


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that takes `combination` runs for each of them."""
    if "combination" in metafunc.fixturenames:
        metafunc.parametrize("combination", every_combination(), ids=str)
