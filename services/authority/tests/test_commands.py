"""The commands on a folder, as a process runs them."""

import json
from pathlib import Path

import jwt
import pytest

from minga_authority.authority import Authority
from minga_authority.commands import run_command
from minga_authority.folder import AuthorityFolder
from minga_core.errors import AlreadyRunningError, InvalidArgumentError, NotFoundError, SettingsError
from minga_runtime.trust.joining import JoinToken
from services.authority.tests.test_joining import Joiner, names

PLACES = ("--registry", "registry.example:50051", "--locator", "https://locator.example:50052")


@pytest.fixture
def folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    made = tmp_path / "authority"
    run_command(["init", "--dir", str(made), "--network", "lab", "--url", "https://ca.example:50050", *PLACES])
    capsys.readouterr()
    return made


def run(folder: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a command prints as its result."""
    assert run_command([*arguments, "--dir", str(folder)]) == 0
    return capsys.readouterr().out.strip()


def test_a_token_says_where_everything_is(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is all of the output, for pipes; the hosts of a registry are those that `init` was told."""
    token = JoinToken.parse(run(folder, capsys, "token", "create", "--role", "registry"))
    assert (token.authority, token.registry) == ("https://ca.example:50050", PLACES[1])
    answer = Authority(AuthorityFolder(folder)).join(token.text, Joiner().csr(), "registry")
    assert names(answer)[1] == ["registry.example"]


def test_a_peer_publishes_nothing_unless_that_is_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    authority = Authority(AuthorityFolder(folder))
    authority.join(run(folder, capsys, "token", "create"), Joiner().csr(), "alpha")
    authority.join(
        run(folder, capsys, "token", "create", "--publish", "ci", "--publish", "data"), Joiner().csr(), "beta"
    )
    rights = {row.terms.name: (row.terms.read, row.terms.publish) for row in authority.store.members()}
    assert rights == {"alpha": (("*",), ()), "beta": (("*",), ("ci", "data"))}


def test_status_shows_members_and_tokens_that_are_left(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    token = run(folder, capsys, "token", "create", "--uses", "3")
    Authority(AuthorityFolder(folder)).join(token, Joiner().csr(), "alpha")
    found = json.loads(run(folder, capsys, "status", "--json"))
    assert [(row["member"], row["state"]) for row in found["members"]] == [("spiffe://lab/peer/alpha", "member")]
    assert [(row["role"], row["uses_left"]) for row in found["tokens"]] == [("peer", 2)]
    assert run(folder, capsys, "revoke", "alpha") == "revoked spiffe://lab/peer/alpha"
    found = json.loads(run(folder, capsys, "status", "--json"))
    assert [row["state"] for row in found["members"]] == ["revoked"]
    assert found["tokens"] == []
    assert "revoked  spiffe://lab/peer/alpha" in run(folder, capsys, "status")


def test_wrong_commands_change_nothing(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(NotFoundError, match="no member or grant is called nobody"):
        run(folder, capsys, "revoke", "nobody")
    with pytest.raises(InvalidArgumentError):
        run(folder, capsys, "token", "create", "--publish", "../x")
    with pytest.raises(InvalidArgumentError):
        run(folder, capsys, "token", "create", "--uses", str(2**63))
    with pytest.raises(AlreadyRunningError):
        run(folder, capsys, "init")
    with pytest.raises(SettingsError, match=r"none is not an authority.s folder: there is no ca\.key"):
        run(tmp_path / "none", capsys, "token", "create")
    for flags in (("--expires", "1"), ("--expires", "-1h"), ("--expires", "999999999d"), ("--role", "boss")):
        with pytest.raises(SystemExit):
            run(folder, capsys, "token", "create", *flags)
    assert json.loads(run(folder, capsys, "status", "--json"))["tokens"] == []


def test_the_usage_names_the_command_and_the_roles(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run(folder, capsys, "token", "create", "--role", "boss")
    shown = capsys.readouterr().err
    assert "usage: minga token create " in shown
    assert "choose from 'peer', 'registry', 'locator', 'client', 'admin'" in shown


def test_secrets_of_kubernetes_are_enough_for_a_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The authority in the cluster has the folder, and an empty database; any number of pods join by the tokens."""
    assert run_command(["init", "--kubernetes", "--namespace", "files"]) == 0
    secrets = read_secrets(capsys.readouterr().out)
    roles = ("registry", "locator", "peer")
    assert set(secrets) == {"minga-authority", "minga-prometheus", *(f"minga-join-{role}" for role in roles)}
    folder, state = tmp_path / "keys", tmp_path / "state"
    folder.mkdir()
    state.mkdir()
    for name, content in secrets["minga-authority"].items():
        (folder / name).write_text(content)
    folder.chmod(0o500)
    authority = Authority(AuthorityFolder(folder), state=state)
    token = JoinToken.parse(secrets["minga-join-registry"]["token"])
    assert token.authority == "https://authority.files.svc:50050"
    for pod in ("registry-7f-a", "registry-7f-b", "registry-7f-c"):
        assert "registry.files.svc" in names(authority.join(token.text, Joiner().csr(), pod))[1]
    assert authority.join(secrets["minga-join-peer"]["token"], Joiner().csr(), "peer-0")
    assert {path.name for path in folder.iterdir()} == set(secrets["minga-authority"])


@pytest.mark.parametrize("namespace", ["minga", "files"])
def test_secrets_are_made_for_a_namespace_of_any_name(namespace: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`registry.minga`, a Service's short name in the namespace `minga`, looks like a name that no host may have."""
    assert run_command(["init", "--kubernetes", "--namespace", namespace]) == 0
    token = JoinToken.parse(read_secrets(capsys.readouterr().out)["minga-join-peer"]["token"])
    assert token.registry == f"registry.{namespace}.svc:50051"


def test_the_grant_of_a_cluster_s_scraper_gives_no_right(capsys: pytest.CaptureFixture[str]) -> None:
    run_command(["init", "--kubernetes"])
    grant = read_secrets(capsys.readouterr().out)["minga-prometheus"]["grant"]
    claims = jwt.decode(grant, options={"verify_signature": False})
    assert claims["minga"] == {"read": [], "publish": [], "admin": False}


def read_secrets(manifests: str) -> dict[str, dict[str, str]]:
    """The data of each Secret, by its name."""
    found = {}
    for document in manifests.split("---\n")[1:]:
        head, data = document.split("stringData:\n")
        name = head.split("  name: ")[1].split("\n")[0]
        pairs = (line.strip().split(": ", 1) for line in data.splitlines())
        found[name] = {json.loads(key): json.loads(value) for key, value in pairs}
    return found
