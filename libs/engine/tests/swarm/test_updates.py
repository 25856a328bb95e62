"""How often a peer says what it has."""

import pytest

from minga_engine.swarm.updates import MAX_PAUSE_SECONDS, UPDATES_PER_SECOND, update_pause


@pytest.mark.parametrize("watchers", [1, 3, 16, 1000])
def test_all_watchers_together_cost_a_bounded_number_of_updates(watchers: int) -> None:
    """And none of them waits long for what has come."""
    pauses = [update_pause(watchers, seconds) for seconds in (0.0, 0.1, 1.0, 100.0)]
    assert pauses == sorted(pauses)
    assert pauses[-1] == MAX_PAUSE_SECONDS
    assert watchers / pauses[0] <= max(UPDATES_PER_SECOND, watchers / MAX_PAUSE_SECONDS) * 1.001
