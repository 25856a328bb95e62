"""Credentials from files: what is refused at the start, and what happens when the files change."""

import logging
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from minga_core.errors import SettingsError, UnauthenticatedError
from minga_runtime.trust import credentials as module
from minga_runtime.trust.credentials import Credentials
from minga_runtime.trust.members import Member, Role, check_server, member_of
from minga_runtime.trust.tls_files import TlsFiles
from tests.support.authority import DAY, Authority

PEER = frozenset({Role.PEER})


def files(folder: Path) -> TlsFiles:
    return TlsFiles(folder / "tls.crt", folder / "tls.key", folder / "ca.crt")


@pytest.fixture(autouse=True)
def _looked_at_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.0)


def test_a_good_certificate_says_who_this_is(tmp_path: Path) -> None:
    """And has the name that gRPC demands of it."""
    own = Credentials(files(Authority("lab").issue(tmp_path, "peer", "node-1")), PEER, "node-1")
    assert own.member == Member("lab", Role.PEER, "node-1")
    assert own.current().hosts == ("node-1.peer.minga",)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda a, f: a.issue(f, "registry", "x"), "a certificate of registry x, not of peer node-1"),
        (lambda a, f: a.issue(f, "peer", "node-2"), "a certificate of peer node-2, not of peer node-1"),
        (lambda a, f: a.issue(f, "peer", "node-1", life=-DAY), "certificate has expired"),
        (lambda a, f: (f / "ca.crt").write_bytes(Authority().pem), "unable to get local issuer certificate"),
        (lambda a, f: (f / "tls.key").unlink(), "tls.key: No such file"),
        (lambda a, f: (f / "tls.crt").write_text("no PEM"), "or no CA: one of them is no PEM"),
        (
            lambda a, f: (a.issue(f / "b", "peer", "b") / "tls.key").replace(f / "tls.key"),
            "or no CA: KEY_VALUES_MISMATCH",
        ),
        (lambda a, f: (f / "ca.crt").write_text(""), "no certificate with its key, or no CA"),
        (lambda a, f: a.issue(f, "boss", "node-1"), "the certificate names no member"),
    ],
)
def test_what_is_no_good_stops_the_process(
    tmp_path: Path, damage: Callable[[Authority, Path], object], words: str
) -> None:
    """In one line that says what is wrong."""
    authority = Authority()
    authority.issue(tmp_path, "peer", "node-1")
    damage(authority, tmp_path)
    with pytest.raises(SettingsError, match=words):
        Credentials(files(tmp_path), PEER, "node-1")


def test_new_files_count_and_broken_ones_do_not(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The good ones stay, with one line however often they are looked at; the next good ones count again."""
    authority = Authority()
    own = Credentials(files(authority.issue(tmp_path, "peer", "node-1")), PEER, "node-1")
    first = own.current()
    assert own.current() is first
    for damage in (
        lambda: (tmp_path / "tls.key").write_bytes(b"half of a k"),
        lambda: authority.issue(tmp_path, "peer", "node-2"),
        lambda: authority.issue(tmp_path, "peer", "node-1", life=-DAY),
        lambda: (tmp_path / "tls.crt").unlink(),
    ):
        caplog.clear()
        damage()
        assert [own.current() is first for _ in range(5)] == [True] * 5
        assert [record.message for record in caplog.records if record.levelno == logging.WARNING] == [
            "credentials_not_read"
        ]
    authority.issue(tmp_path, "peer", "node-1")
    assert own.current().certificate == (tmp_path / "tls.crt").read_bytes() != first.certificate


def test_a_key_that_all_may_read_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Kubernetes makes its secrets like that."""
    authority = Authority()
    Credentials(files(authority.issue(tmp_path, "peer", "node-1")), PEER)
    assert "private_key_readable_by_all" not in caplog.text
    (tmp_path / "tls.key").chmod(0o644)
    Credentials(files(tmp_path), PEER)
    assert "private_key_readable_by_all" in caplog.text


@pytest.mark.parametrize(
    "uris",
    [
        [],
        ["spiffe://lab/peer/a", "spiffe://lab/admin/a"],
        ["spiffe://lab/root/a"],
        ["spiffe://lab/peer/"],
        ["spiffe://lab/peer/a/b"],
        ["spiffe://lab/peer/../admin"],
        ["spiffe://lab/peer/a\n"],
        ["spiffe://LAB/peer/a"],
        ["https://lab/peer/a"],
        ["spiffe://lab/peer/" + "a" * 129],
    ],
)
def test_a_certificate_names_one_member(uris: list[str]) -> None:
    """By exactly one URI of the one form."""
    with pytest.raises(UnauthenticatedError):
        member_of(uris)


def test_who_answers_must_be_who_was_named() -> None:
    """The role, the network and, where it is known, the name."""
    own, found = Member("lab", Role.CLIENT, "me"), Member("lab", Role.PEER, "a")
    check_server(found, own, Role.PEER, "a")
    for role, name in ((Role.LOCATOR, ""), (Role.PEER, "A"), (Role.PEER, "b")):
        with pytest.raises(UnauthenticatedError):
            check_server(found, own, role, name)
    with pytest.raises(UnauthenticatedError):
        check_server(Member("other", Role.PEER, "a"), own, Role.PEER, "a")


def test_a_locator_must_be_one(tmp_path: Path) -> None:
    """A peer whose certificate has the host's name as well is not taken for a locator: the handshake fails."""
    authority = Authority()
    client = Credentials(files(authority.issue(tmp_path / "a", "client", "me")), frozenset({Role.CLIENT}))
    servers = {role: files(authority.issue(tmp_path / role, role, "localhost")) for role in ("locator", "registry")}
    for role, its_files in servers.items():
        server = Credentials(its_files, frozenset({Role(role)})).web_context()
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        near = client.locator_context().wrap_bio(to_client, to_server, server_hostname="localhost")
        far = server.wrap_bio(to_server, to_client, server_side=True)
        for end in (near, far):
            with pytest.raises(ssl.SSLWantReadError):
                end.do_handshake()
        if role == "locator":
            near.do_handshake()
        else:
            with pytest.raises(UnauthenticatedError, match="what answers is registry localhost, not locator"):
                near.do_handshake()
