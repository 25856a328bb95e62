"""The lower bound: each of its three terms decides somewhere."""

import pytest

from bench.bounds import group_bound, one_server_bound, swarm_bound

MIB = 1 << 20
EVEN = [50.0] * 16


def test_even_links_are_bound_by_one_pass_over_a_link() -> None:
    """The figure of the design: 128 MiB at 50 Mbit/s."""
    assert swarm_bound(128 * MIB, 50.0, EVEN, EVEN) == pytest.approx(21.47, abs=0.01)


def test_a_slow_seed_binds_all() -> None:
    """F/u_s: every byte leaves the seed at least once."""
    assert swarm_bound(10**6, 8.0, [800.0] * 4, [800.0] * 4) == pytest.approx(1.0)


def test_the_slowest_downloader_binds_the_last_finish() -> None:
    """F/d."""
    assert swarm_bound(10**6, 800.0, [800.0, 800.0], [800.0, 4.0]) == pytest.approx(2.0)


def test_downloaders_that_cannot_send_leave_the_seed_all_the_work() -> None:
    """N·F/(u_s + Σu): without uploads a swarm is a plain server."""
    assert swarm_bound(10**6, 8.0, [0.0] * 5, [800.0] * 5) == pytest.approx(5.0)
    assert one_server_bound(10**6, 8.0, [800.0] * 5) == pytest.approx(5.0)


def test_in_an_uneven_swarm_a_host_is_bound_by_its_own_link_when_there_is_supply() -> None:
    """The scenario's own figures: 4 slow, 8 middling, 4 fast hosts."""
    rates = {f"s{i}": 10.0 for i in range(4)} | {f"m{i}": 50.0 for i in range(8)} | {f"f{i}": 200.0 for i in range(4)}
    bounds = {host: group_bound(128 * MIB, 200.0, rates, host) for host in ("s0", "m0", "f0")}
    assert bounds == {
        "s0": pytest.approx(107.4, abs=0.1),
        "m0": pytest.approx(21.5, abs=0.1),
        "f0": pytest.approx(5.4, abs=0.1),
    }


def test_in_an_uneven_swarm_a_lack_of_supply_binds_all_that_are_as_fast() -> None:
    """Ten fast downloaders, and only they and a slow seed to send."""
    rates = {f"f{i}": 8.0 for i in range(10)}
    assert group_bound(10**6, 8.0, rates, "f0") == pytest.approx(1.0)
    assert group_bound(10**6, 8.0, rates | {"down": 800.0}, "f0") == pytest.approx(1.0)
