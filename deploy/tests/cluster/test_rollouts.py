"""What controllers decide, step by step until nothing is left to do."""

from dataclasses import replace

import pytest

from deploy.tests.cluster.manifests import Rolling
from deploy.tests.cluster.rollouts import Replica, Step, daemon_step, deployment_step, stateful_step


def good(name: str, revision: int = 1, place: int | str = "") -> Replica:
    return Replica(name, revision, ready=True, available=True, place=place)


def starting(name: str, revision: int = 1, place: int | str = "") -> Replica:
    return Replica(name, revision, place=place)


def test_a_deployment_without_pods_makes_all_at_once() -> None:
    """As many as are wanted."""
    assert deployment_step([], 3, 1, Rolling(1, 0)).create == ("", "", "")


def test_with_a_surge_of_one_and_none_unavailable_an_old_pod_goes_only_after_a_new_one_is_available() -> None:
    """The rule that no upgrade may be noticed by."""
    rolling = Rolling(1, 0)
    old = [good("a"), good("b")]
    assert deployment_step(old, 2, 2, rolling) == Step(("",))
    assert deployment_step([*old, starting("c", 2)], 2, 2, rolling) == Step()
    assert deployment_step([*old, good("c", 2)], 2, 2, rolling) == Step(delete=("a",))
    ending = [replace(old[0], terminating=True), old[1], good("c", 2)]
    assert deployment_step(ending, 2, 2, rolling) == Step(("",))
    assert deployment_step([old[1], good("c", 2), good("d", 2)], 2, 2, rolling) == Step(delete=("b",))
    assert deployment_step([good("c", 2), good("d", 2)], 2, 2, rolling) == Step()


def test_pods_that_may_be_unavailable_go_first() -> None:
    """One away at a time, and new ones come as far as the surge allows."""
    assert deployment_step([good("a"), good("b")], 2, 2, Rolling(0, 1)) == Step(delete=("a",))


def test_broken_old_pods_go_before_those_that_work() -> None:
    """They are no loss; the working ones stay until new ones are available."""
    step = deployment_step([starting("broken"), good("works"), starting("new", 2)], 2, 2, Rolling(1, 0))
    assert step == Step()
    step = deployment_step([starting("broken"), good("works"), good("new", 2)], 2, 2, Rolling(1, 0))
    assert step == Step(delete=("broken",))


@pytest.mark.parametrize(("wanted", "surge", "unavailable"), [(1, 1, 0), (3, 1, 0), (4, 2, 1), (5, 0, 2), (3, 3, 3)])
def test_a_rollout_ends_and_keeps_its_word(wanted: int, surge: int, unavailable: int) -> None:
    """At every step: never more than wanted + surge, never fewer available than wanted - unavailable."""
    replicas = {f"old{number}": good(f"old{number}") for number in range(wanted)}
    for turn in range(50):
        step = deployment_step(list(replicas.values()), wanted, 2, Rolling(surge, unavailable))
        for name in step.delete:
            del replicas[name]
        assert sum(one.available for one in replicas.values()) >= wanted - unavailable
        done = step == Step() and all(one.available for one in replicas.values())
        # What was made the turn before is available now.
        replicas = {name: replace(one, ready=True, available=True) for name, one in replicas.items()}
        for number in range(len(step.create)):
            replicas[f"new{turn}-{number}"] = starting(f"new{turn}-{number}", 2)
        assert len(replicas) <= wanted + surge
        if done:
            break
    assert [one.revision for one in replicas.values()] == [2] * wanted


def test_stateful_pods_come_one_after_the_other() -> None:
    """The next only when the one before is ready; without an order all at once."""
    assert stateful_step([], 3, 1, ordered=True) == Step((0,))
    assert stateful_step([starting("p-0", place=0)], 3, 1, ordered=True) == Step()
    assert stateful_step([good("p-0", place=0)], 3, 1, ordered=True) == Step((1,))
    assert stateful_step([], 3, 1, ordered=False) == Step((0, 1, 2))


def test_stateful_pods_are_replaced_from_the_last_to_the_first() -> None:
    """One at a time, and only while the newer ones are ready."""
    pods = [good(f"p-{place}", place=place) for place in range(3)]
    assert stateful_step(pods, 3, 2, ordered=True) == Step(delete=("p-2",))
    pods[2] = starting("p-2", 2, 2)
    assert stateful_step(pods, 3, 2, ordered=True) == Step()
    pods[2] = good("p-2", 2, 2)
    assert stateful_step(pods, 3, 2, ordered=True) == Step(delete=("p-1",))


def test_a_stateful_pod_that_ends_keeps_its_place_until_it_is_gone() -> None:
    """Two of one name would share a volume."""
    ending = replace(good("p-0", place=0), terminating=True, ready=False, available=False)
    assert stateful_step([ending], 1, 1, ordered=True) == Step()
    assert stateful_step([good("p-0", place=0)], 0, 1, ordered=True) == Step(delete=("p-0",))


def test_a_daemon_set_has_one_pod_on_each_node() -> None:
    """Also where the last one is still ending: its successor waits."""
    nodes = ["n1", "n2"]
    rolling = Rolling(0, 1)
    assert daemon_step([], nodes, 1, rolling) == Step(("n1", "n2"))
    pods = [good("a", place="n1"), good("b", place="n2")]
    assert daemon_step(pods, nodes, 2, rolling) == Step(delete=("a",))
    pods[0] = replace(pods[0], terminating=True, available=False)
    assert daemon_step(pods, nodes, 2, rolling) == Step()
    assert daemon_step(pods[1:], nodes, 2, rolling) == Step(("n1",))
    assert daemon_step([starting("c", 2, "n1"), pods[1]], nodes, 2, rolling) == Step()
    assert daemon_step([good("c", 2, "n1"), pods[1]], nodes, 2, rolling) == Step(delete=("b",))
