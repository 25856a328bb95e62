"""What the controllers of workloads decide, as Kubernetes' own do. Pure: pods in, creations and deletions out.

Each decision is one step; the controller takes it, looks again, and asks for the next one.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from deploy.tests.cluster.manifests import Rolling


@dataclass(frozen=True, slots=True)
class Replica:
    """A pod as its controller sees it. place: ordinal in a StatefulSet, node in a DaemonSet."""

    name: str
    revision: int
    ready: bool = False
    available: bool = False
    """Ready for minReadySeconds."""
    terminating: bool = False
    place: int | str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """What to do now. create: places of new pods (of a Deployment, any); delete: names."""

    create: tuple[int | str, ...] = ()
    delete: tuple[str, ...] = ()


def deployment_step(replicas: Iterable[Replica], wanted: int, revision: int, rolling: Rolling) -> Step:
    """New pods as far as the surge allows; old ones go as far as enough others are available.

    Pods that are ending count for nothing: they may still be there beside the surge, as in Kubernetes.
    """
    live = [one for one in replicas if not one.terminating]
    new = [one for one in live if one.revision == revision]
    old = [one for one in live if one.revision != revision]
    if len(new) > wanted:
        surplus = sorted(new, key=lambda one: one.ready)[: len(new) - wanted]
        return Step(delete=tuple(one.name for one in surplus))
    create = max(0, min(wanted + rolling.max_surge - len(live), wanted - len(new)))
    floor = wanted - rolling.max_unavailable
    new_unavailable = len(new) + create - sum(one.available for one in new)
    spare = len(live) + create - floor - new_unavailable
    # Old ones that do no work go first, whoever else is available.
    broken = [one for one in old if not one.available][: max(0, spare)]
    healthy = [one for one in old if one.available]
    may_go = max(0, min(spare - len(broken), sum(one.available for one in live) - floor))
    return Step(("",) * create, tuple(one.name for one in (*broken, *healthy[:may_go])))


def stateful_step(replicas: Iterable[Replica], wanted: int, revision: int, *, ordered: bool) -> Step:
    """Pods by ordinal, one after the other where that is asked for; updates from the last to the first, one by one."""
    by_ordinal = {int(one.place): one for one in replicas}
    missing = [ordinal for ordinal in range(wanted) if ordinal not in by_ordinal]
    if ordered:
        for ordinal in range(wanted):
            found = by_ordinal.get(ordinal)
            if found is None:
                return Step(create=(ordinal,))
            if not found.available:
                return _one_broken(found, revision)
    elif missing:
        return Step(create=tuple(missing))
    surplus = [by_ordinal[ordinal] for ordinal in sorted(by_ordinal, reverse=True) if ordinal >= wanted]
    if surplus:
        going = surplus[:1] if ordered else surplus
        return Step(delete=tuple(one.name for one in going if not one.terminating))
    for ordinal in sorted(by_ordinal, reverse=True):
        found = by_ordinal[ordinal]
        if found.revision != revision and not found.terminating:
            return Step(delete=(found.name,))
        if not found.available:
            break
    return Step()


def _one_broken(found: Replica, revision: int) -> Step:
    """A pod that holds up all after it: waited for, unless it is of an old revision and another one may do better."""
    if found.revision != revision and not found.terminating and not found.ready:
        return Step(delete=(found.name,))
    return Step()


def daemon_step(replicas: Sequence[Replica], nodes: Sequence[str], revision: int, rolling: Rolling) -> Step:
    """A pod for each node that has none, not even one that is ending; then old ones go, as many as may be away."""
    on_node = {str(one.place): one for one in replicas}
    if missing := tuple(node for node in nodes if node not in on_node):
        return Step(create=missing)
    old = [one for one in replicas if one.revision != revision and not one.terminating]
    broken = [one for one in old if not one.available]
    healthy = [one for one in old if one.available]
    unavailable = sum(not one.available for one in replicas)
    may_go = max(0, rolling.max_unavailable - unavailable)
    return Step(delete=tuple(one.name for one in (*broken, *healthy[:may_go])))
