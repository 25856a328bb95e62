"""The cluster's names and the answers to queries for them."""

import struct

from deploy.tests.cluster.dns import answer, names_of, resolv_conf
from deploy.tests.cluster.endpoints import Endpoint, connectable
from deploy.tests.cluster.fields import Fields
from deploy.tests.cluster.manifests import Service
from deploy.tests.cluster.podspec import PodSpec, parse_pod

A, AAAA = 1, 28
LABELS = {"app": "registry"}


def pod_spec(subdomain: str = "") -> PodSpec:
    raw = {"enableServiceLinks": False, "automountServiceAccountToken": False, "subdomain": subdomain}
    return parse_pod(Fields(raw, "pod"))


def pod(name: str, ip: str, *, serving: bool = True, terminating: bool = False, subdomain: str = "") -> Endpoint:
    return Endpoint(name, ip, LABELS, pod_spec(subdomain), serving, terminating)


def service(name: str = "registry", *, headless: bool = True, publish_not_ready: bool = False) -> Service:
    return Service(name, headless, LABELS, (), publish_not_ready)


def query(name: str, kind: int = A, number: int = 7) -> bytes:
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack("!6H", number, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", kind, 1)


def asked(name: str, names: dict[str, list[str]], kind: int = A) -> tuple[int, list[str]]:
    """The response's code and addresses."""
    response = answer(query(name, kind), names, shuffle=lambda _: None)
    assert response is not None
    number, flags, questions, answers, _, _ = struct.unpack_from("!6H", response)
    assert (number, questions) == (7, 1)
    assert flags & 0x8000
    records = response[len(query(name, kind)) :]
    assert len(records) == 16 * answers
    found = [".".join(map(str, records[place + 12 : place + 16])) for place in range(0, len(records), 16)]
    return flags & 0xF, found


def test_a_headless_service_is_its_ready_pods() -> None:
    """Those that are not ready, or end, are not in it."""
    pods = [pod("a", "1.0.0.1"), pod("b", "1.0.0.2", serving=False), pod("c", "1.0.0.3", terminating=True)]
    assert names_of([service()], {}, pods)["registry.minga.svc.cluster.local"] == ["1.0.0.1"]


def test_addresses_that_are_not_ready_are_published_where_that_is_asked_for() -> None:
    """Every pod that has an address, until it is gone."""
    pods = [pod("a", "1.0.0.1", serving=False), pod("b", "1.0.0.2", terminating=True), pod("c", "")]
    found = names_of([service(publish_not_ready=True)], {}, pods)
    assert found["registry.minga.svc.cluster.local"] == ["1.0.0.1", "1.0.0.2"]


def test_other_services_are_their_virtual_address_whatever_their_pods_do() -> None:
    """Also without any."""
    assert names_of([service(headless=False)], {"registry": "1.9.9.9"}, []) == {
        "registry.minga.svc.cluster.local": ["1.9.9.9"]
    }


def test_pods_of_a_stateful_set_have_names_of_their_own() -> None:
    """Others are named by their address."""
    pods = [pod("peer-0", "1.0.0.1", subdomain="registry"), pod("b", "1.0.0.2")]
    found = names_of([service()], {}, pods)
    assert found["peer-0.registry.minga.svc.cluster.local"] == ["1.0.0.1"]
    assert found["1-0-0-2.registry.minga.svc.cluster.local"] == ["1.0.0.2"]


def test_a_name_is_answered_whatever_its_case() -> None:
    """All its addresses."""
    names = {"a.b": ["1.2.3.4", "5.6.7.8"]}
    assert asked("A.b", names) == (0, ["1.2.3.4", "5.6.7.8"])


def test_another_type_of_a_name_that_exists_is_empty_and_no_error() -> None:
    """An error for AAAA would make resolvers give the name up."""
    assert asked("a.b", {"a.b": ["1.2.3.4"]}, AAAA) == (0, [])


def test_a_name_without_addresses_exists_and_any_other_does_not() -> None:
    """No error and no address; NXDOMAIN, so that the next search domain is tried."""
    assert asked("a.b", {"a.b": []}) == (0, [])
    assert asked("c.b", {"a.b": []}) == (3, [])


def test_nonsense_is_refused_or_ignored() -> None:
    """A response is not answered, or two servers would talk to each other for ever."""
    assert answer(b"short", {}) is None
    assert answer(struct.pack("!6H", 7, 0x8000, 1, 0, 0, 0), {}) is None
    cut = answer(query("a.b")[:-3], {})
    assert cut is not None
    assert struct.unpack_from("!6H", cut)[1] & 0xF == 1


def test_pods_are_told_what_kubelet_tells_them() -> None:
    """Three search domains and ndots:5."""
    assert resolv_conf("1.2.3.4") == (
        "search minga.svc.cluster.local svc.cluster.local cluster.local\nnameserver 1.2.3.4\noptions ndots:5\n"
    )


def test_connections_go_to_ready_pods_and_to_ending_ones_only_when_there_is_no_other() -> None:
    """As kube-proxy has it (KEP-1669)."""
    ready, ending, broken = pod("a", "1"), pod("b", "2", terminating=True), pod("c", "3", serving=False)
    assert connectable(service(), [ready, ending, broken]) == [ready]
    assert connectable(service(), [ending, broken]) == [ending]
    assert connectable(service(), [broken]) == []
