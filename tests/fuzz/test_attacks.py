"""Each attack in its short form, with a fixed seed."""

import pytest

from tests.fuzz import attacks
from tests.fuzz.target import Target

SEED = 1


@pytest.mark.redis
@pytest.mark.e2e
@pytest.mark.parametrize("name", attacks.names())
def test_nothing_breaks_under(target: Target, name: str) -> None:
    """See the module `tests.fuzz`."""
    attacks.run(name, target, SEED)
