"""MINGA_CREDENTIALS: one folder stands for all the settings of a member."""

from pathlib import Path
from typing import Any

import pytest

from minga_core.errors import SettingsError, UnavailableError
from minga_runtime.settings import Settings, load_settings
from minga_runtime.trust.credentials_folder import Joined, keep_membership, keep_trust

ALPHA = Joined("https://ca:50050", "spiffe://test/peer/alpha", 60.0, "registry:50051", "https://locator:50052")
ANSWER: dict[str, Any] = {
    "ca": "ca",
    "grant_keys": "keys",
    "revoked": ["spiffe://test/peer/beta"],
    "grant": "grant",
    "certificate": "certificate",
}


class OfPeer(Settings):
    """A part that has all of it."""

    registry: str = "127.0.0.1:50051"
    locator: str = "http://127.0.0.1:50052"
    peer_id: str = "host"
    grant: Path | None = None


class OfLocator(Settings):
    """A part that needs none of a peer's."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "key.pem").write_text("key")
    keep_membership(tmp_path, ALPHA, ANSWER)
    monkeypatch.setenv("MINGA_CREDENTIALS", str(tmp_path))
    return tmp_path


def test_a_folder_is_all_that_is_set(folder: Path) -> None:
    """Files that are not there stand for nothing, and settings that a part does not have are left out."""
    found = load_settings(OfPeer)
    assert found.tls is not None
    assert (found.tls.certificate, found.tls.revoked) == (folder / "cert.pem", folder / "revoked")
    assert (found.registry, found.locator, found.peer_id) == (ALPHA.registry, ALPHA.locator, "alpha")
    assert found.grant == folder / "grant.jwt"
    assert load_settings(OfLocator).revoked == folder / "revoked"
    (folder / "revoked").unlink()
    assert load_settings(OfLocator).revoked is None


def test_what_is_set_beside_it_wins(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINGA_LOCATOR", "https://other:50052")
    found = load_settings(OfPeer, registry="other:50051", tls_ca=folder / "other.pem")
    assert (found.locator, found.registry) == ("https://other:50052", "other:50051")
    assert found.tls is not None
    assert (found.tls.ca, found.tls.key) == (folder / "other.pem", folder / "key.pem")


def test_an_empty_folder_says_what_writes_it(tmp_path: Path) -> None:
    """And never becomes an open network."""
    with pytest.raises(SettingsError, match="`minga join TOKEN` writes it"):
        load_settings(OfLocator, credentials=tmp_path)
    with pytest.raises(SettingsError, match="`minga join TOKEN` writes it"):
        load_settings(OfLocator, credentials=tmp_path / "none")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"authority": "x", "member": "boss", "life_seconds": 1}'])
def test_a_broken_folder_is_refused(folder: Path, content: str) -> None:
    (folder / "authority.json").write_text(content)
    with pytest.raises(SettingsError, match=r"authority\.json"):
        load_settings(OfLocator)


def test_certificates_of_elsewhere_may_be_in_it_too(folder: Path) -> None:
    (folder / "authority.json").unlink()
    assert load_settings(OfPeer).peer_id == "host"


@pytest.mark.parametrize("lacking", ANSWER)
def test_an_answer_that_lacks_something_replaces_no_certificate(folder: Path, lacking: str) -> None:
    answer = {name: value for name, value in ANSWER.items() if name != lacking} | {"member": ALPHA.member}
    with pytest.raises(UnavailableError):
        keep_membership(folder, ALPHA, answer | ({} if lacking == "certificate" else {"certificate": "new"}))
    assert (folder / "cert.pem").read_text() == "certificate"


def test_a_list_of_the_revoked_is_a_list(folder: Path) -> None:
    with pytest.raises(UnavailableError):
        keep_trust(folder, ANSWER | {"revoked": "all"})
