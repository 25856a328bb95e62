"""Where requests come from, and what they are counted and named by."""

from types import SimpleNamespace
from typing import Any

import pytest

from minga_runtime.trust.members import Member, Role
from minga_runtime.trust.origin import Origin


def context(peer: str, *uris: str) -> Any:
    found = {"peer_uri": [uri.encode() for uri in uris]} if uris else {}
    return SimpleNamespace(peer=lambda: peer, auth_context=lambda: found)


@pytest.mark.parametrize(
    ("peer", "caller"),
    [
        ("ipv4:10.0.0.1:4711", "10.0.0.1"),
        ("ipv6:%5B2001:db8::1%5D:4711", "2001:db8::/64"),
        ("ipv6:%5B2001:db8:0:0:ffff::2%5D:4712", "2001:db8::/64"),
        ("ipv6:%5Bfe80::1%25eth0%5D:4711", "fe80::/64"),
        ("ipv6:%5B::ffff:10.0.0.1%5D:4711", "10.0.0.1"),
        ("unix:", "unix"),
        ("unix:/run/x:1", "unix"),
    ],
)
def test_a_caller_without_a_certificate_is_its_host(peer: str, caller: str) -> None:
    """Whatever port it calls from."""
    found = Origin.of_rpc(context(peer))
    assert (found.caller, found.who) == (caller, caller)


def test_a_caller_with_a_certificate_is_its_member_wherever_it_calls_from() -> None:
    found = [Origin.of_rpc(context(f"ipv4:10.0.0.{at}:7", "spiffe://net/peer/p-1")) for at in (1, 2)]
    assert {origin.caller for origin in found} == {"peer p-1"}
    assert {origin.who for origin in found} == {"spiffe://net/peer/p-1"}
    assert [origin.address for origin in found] == ["10.0.0.1:7", "10.0.0.2:7"]


def test_a_certificate_that_names_nobody_is_counted_by_its_host() -> None:
    found = Origin.of_rpc(context("ipv6:%5B::1%5D:7", "https://example.org"))
    assert (found.caller, found.address, found.member) == ("::/64", "[::1]:7", None)


def test_a_socket_that_is_gone_has_no_address() -> None:
    member = Member("net", Role.CLIENT, "someone")
    assert Origin.of_socket(None, member) == Origin("", "unknown", member)
