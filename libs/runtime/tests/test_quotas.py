"""What one caller may have of a peer, and what the others still get."""

import pytest

from minga_core.errors import BusyError
from minga_runtime.quotas import Quota, caller_of


def test_no_caller_holds_more_than_its_share() -> None:
    """Half, unless it is the first and asks for one large thing; what it gives back it may have again."""
    quota = Quota("bytes", 100)
    with quota.held("a", 30), quota.held("b", 10):
        with pytest.raises(BusyError, match="30 bytes of yours"), quota.held("a", 21):
            pass
        with quota.held("a", 20), quota.held("c", 40), pytest.raises(BusyError), quota.held("d", 1):
            pass
    assert quota.held_count == 0
    with quota.held("a", 90), quota.held("b", 10):
        assert quota.held_count == 100
    with quota.held("a", 500):
        pass


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
def test_a_caller_is_its_host(peer: str, caller: str) -> None:
    """Whatever port it calls from."""
    assert caller_of(peer) == caller
