"""Who is revoked is refused where callers are admitted, on streams that stand too."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from minga_core.errors import PermissionDeniedError, SettingsError
from minga_runtime.trust import watched_file
from minga_runtime.trust.authorization import Access
from minga_runtime.trust.callers import Callers
from minga_runtime.trust.members import Member, Role
from minga_runtime.trust.revocation import Revoked
from tests.support.authority import Authority

ALPHA, BETA = "spiffe://test/peer/alpha", "spiffe://test/peer/beta"


@pytest.fixture(autouse=True)
def _look_always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watched_file, "LOOK_SECONDS", 0.0)


def test_only_whole_lines_count(tmp_path: Path) -> None:
    file = tmp_path / "revoked"
    file.write_text(f"{ALPHA}\r\n\n grant-7 \n")
    revoked = Revoked(file)
    revoked.check(BETA, "grant-1")
    revoked.check(ALPHA + "x")
    revoked.check(ALPHA[:-1])
    for ids in ((ALPHA,), (BETA, "grant-7"), ("someone", "grant-7")):
        with pytest.raises(PermissionDeniedError, match="has been revoked"):
            revoked.check(*ids)


def test_a_long_list_is_read_whole(tmp_path: Path) -> None:
    """Of a fleet of ten thousand that has been stolen."""
    file = tmp_path / "revoked"
    file.write_text(
        "".join(f"spiffe://test/peer/a-name-as-long-as-that-of-a-cloud-{number}\n" for number in range(10_000))
    )
    with pytest.raises(PermissionDeniedError):
        Revoked(file).check("spiffe://test/peer/a-name-as-long-as-that-of-a-cloud-9999")


def test_without_a_file_nobody_is_revoked() -> None:
    assert not Revoked().anybody
    Revoked().check(ALPHA)


def test_a_list_that_is_lost_or_broken_leaves_the_last_one(tmp_path: Path) -> None:
    """Somebody who is revoked does not come back when a disk fails."""
    file = tmp_path / "revoked"
    file.write_text(ALPHA)
    revoked = Revoked(file)
    for spoil in (file.unlink, lambda: file.write_bytes(b"\xff\xfe")):
        spoil()
        with pytest.raises(PermissionDeniedError):
            revoked.check(ALPHA)
    file.write_text(BETA)
    revoked.check(ALPHA)


def test_a_list_that_is_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="MINGA_REVOKED"):
        Revoked(tmp_path / "revoked")


def test_a_stream_ends_when_its_caller_is_revoked(tmp_path: Path) -> None:
    """Its next message is refused, and it can make no call."""
    file = tmp_path / "revoked"
    certificate = (Authority().issue(tmp_path, "peer", "alpha") / "tls.crt").read_bytes()
    file.write_text("")
    own: Any = SimpleNamespace(member=Member("test", Role.REGISTRY, "registry"), revoked=Revoked(file))
    access = Access(own, Callers(own.member), {"service": frozenset({Role.PEER})})
    context = SimpleNamespace(auth_context=lambda: {"peer_uri": [ALPHA.encode()], "x509_pem_cert": [certificate]})
    check = access.admit("/service/Method", context)
    check("message")
    file.write_text(ALPHA)
    with pytest.raises(PermissionDeniedError):
        check("message")
    with pytest.raises(PermissionDeniedError):
        access.admit("/service/Method", context)


async def test_a_bearer_is_revoked_by_its_member_its_subject_or_its_grant(tmp_path: Path) -> None:
    """A grant does not bring back who is no member, and a grant alone can be revoked."""
    file = tmp_path / "revoked"
    file.write_text(ALPHA)
    callers = Callers(Member("test", Role.LOCATOR, "locator"), revoked=Revoked(file))
    with pytest.raises(PermissionDeniedError, match="has been revoked"):
        await callers.client(Member("test", Role.PEER, "alpha"), "")
    with pytest.raises(PermissionDeniedError, match="has been revoked"):
        await callers.member(Member("test", Role.PEER, "alpha"), "")
    assert (await callers.client(Member("test", Role.PEER, "beta"), "")).subject == BETA
