"""`minga containerd`: lines in containerd's files, which may be somebody else's."""

import threading
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from .conftest import Minga

MIRROR = "http://127.0.0.1:50080"
HOST = {"capabilities": ["pull"], "dial_timeout": "200ms"}
OTHERS = """# ours
server = "https://cache.example"

# the office
[host."https://cache.example"]
  capabilities = ["pull", "resolve"]   # both

  [host."https://cache.example".header]
    x-office = ["b", "c"]
"""


@pytest.fixture(name="certs")
def _certs(tmp_path: Path) -> Path:
    return tmp_path / "certs.d"


def install(minga: Minga, certs: Path, *arguments: str) -> str:
    """The output of a successful install that asks no gateway."""
    ended = minga("containerd", "install", *arguments, "--dir", str(certs), "--mirror", MIRROR, "--no-check")
    assert ended.code == 0, ended.err
    return ended.out


def test_install_and_uninstall(minga: Minga, certs: Path) -> None:
    """New files, and nothing of them afterwards. Twice is as once."""
    printed = install(minga, certs, "docker.io", "ghcr.io")
    assert printed.count(f"asks {MIRROR} first") == 2
    for name in ("docker.io", "ghcr.io"):
        assert tomllib.loads((certs / name / "hosts.toml").read_text()) == {"host": {MIRROR: HOST}}
        assert (certs / name / "hosts.toml").stat().st_mode & 0o777 == 0o644
    assert install(minga, certs, "docker.io,ghcr.io").count("has it already") == 2
    assert minga("containerd", "uninstall", "ghcr.io", "--dir", str(certs)).code == 0
    assert [path.name for path in certs.iterdir()] == ["docker.io"]
    assert minga("containerd", "uninstall", "--dir", str(certs)).code == 0
    assert list(certs.iterdir()) == []
    assert minga("containerd", "uninstall", "--dir", str(certs)).code == 0


def test_what_is_there_is_kept(minga: Minga, certs: Path) -> None:
    """Comments too; the mirror is asked before the others, whose order is that of the file."""
    path = certs / "docker.io" / "hosts.toml"
    path.parent.mkdir(parents=True)
    path.write_text(OTHERS)
    path.chmod(0o640)
    install(minga, certs, "docker.io", "--resolve")
    found = tomllib.loads(path.read_text())
    assert list(found["host"]) == [MIRROR, "https://cache.example"]
    assert found["host"][MIRROR]["capabilities"] == ["pull", "resolve"]
    assert found["server"] == "https://cache.example"
    assert path.stat().st_mode & 0o777 == 0o640
    assert minga("containerd", "uninstall", "--dir", str(certs)).code == 0
    assert path.read_text() == OTHERS


@pytest.mark.parametrize("text", ["server = 'x'", "", "\n", "# only this", OTHERS, "ca = [\n  'a',\n]\n[host]\n"])
def test_uninstall_leaves_the_text_as_it_was(minga: Minga, certs: Path, text: str) -> None:
    """Whatever it ends with."""
    path = certs / "docker.io" / "hosts.toml"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    install(minga, certs, "docker.io")
    minga("containerd", "uninstall", "--dir", str(certs))
    assert (path.read_text() if path.exists() else "").strip() == text.strip()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[host", "no TOML"),
        (f'[host."{MIRROR}"]\n', "by other hands"),
        ("client = [\n['a', 'b'],\n]\n", "no TOML"),
        ("host.x.capabilities = ['pull']\n", "lines cannot be added"),
        ("# >>> Minga: `minga containerd uninstall` removes these lines\n", "is missing in it"),
    ],
)
def test_what_cannot_be_changed_safely_is_left_alone(minga: Minga, certs: Path, text: str, why: str) -> None:
    """containerd reads half a file as none, and pulls without its certificates and its mirrors."""
    path = certs / "docker.io" / "hosts.toml"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    ended = minga("containerd", "install", "docker.io", "--dir", str(certs), "--mirror", MIRROR, "--no-check")
    assert ended.code == 2
    assert "docker.io is not changed" in ended.err
    assert why in ended.err
    assert path.read_text() == text
    assert [each.name for each in path.parent.iterdir()] == ["hosts.toml"]


@pytest.mark.parametrize(("existing", "used"), [(None, "r.example_5000_"), ("r.example:5000", "r.example:5000")])
def test_a_registry_with_a_port_over_http(minga: Minga, certs: Path, existing: str | None, used: str) -> None:
    """containerd looks for `_5000_` first, and takes HTTPS unless `server` says otherwise."""
    certs.mkdir()
    if existing:
        (certs / existing).mkdir()
    install(minga, certs, "http://r.example:5000")
    found = tomllib.loads((certs / used / "hosts.toml").read_text())
    assert found == {"server": "http://r.example:5000", "host": {MIRROR: HOST}}


def test_certificates_in_the_folder_still_count(minga: Minga, certs: Path) -> None:
    """containerd takes them by their names only as long as there is no hosts.toml."""
    folder = certs / "r.example"
    folder.mkdir(parents=True)
    for name in ("ca.crt", "me.cert", "me.key"):
        (folder / name).touch()
    install(minga, certs, "r.example")
    found = tomllib.loads((folder / "hosts.toml").read_text())
    assert (found["ca"], found["client"]) == (["ca.crt"], [["me.cert", "me.key"]])
    minga("containerd", "uninstall", "--dir", str(certs))
    assert sorted(path.name for path in folder.iterdir()) == ["ca.crt", "me.cert", "me.key"]


def test_a_default_for_all_registries_is_not_put_out_of_force(minga: Minga, certs: Path) -> None:
    """A folder of its own would hide `_default` from containerd."""
    (certs / "_default").mkdir(parents=True)
    ended = minga("containerd", "install", "docker.io", "--dir", str(certs), "--mirror", MIRROR, "--no-check")
    assert ended.code == 2
    assert "copy it there first" in ended.err
    assert not (certs / "docker.io").exists()


@pytest.mark.parametrize("registry", ["docker.io/library", "a b", "../x", "_default", "", "ftp://x"])
def test_what_is_no_registry(minga: Minga, certs: Path, registry: str) -> None:
    """Nothing is written anywhere."""
    assert minga("containerd", "install", registry, "--dir", str(certs), "--no-check").code == 2
    assert not certs.exists()


@pytest.fixture(name="gateway")
def _gateway() -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/v2/?ns=docker.io" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_install_asks_the_gateway_first(minga: Minga, certs: Path, gateway: str) -> None:
    """A mirror that does not serve it would cost each pull a request, and do nothing."""
    options = ("--dir", str(certs), "--mirror", gateway)
    assert minga("containerd", "install", "docker.io", *options).code == 0
    ended = minga("containerd", "install", "ghcr.io", *options)
    assert ended.code == 5
    assert "MINGA_IMAGES=ghcr.io" in ended.err
    assert not (certs / "ghcr.io").exists()
    ended = minga("containerd", "install", "docker.io", "--dir", str(certs), "--mirror", "http://127.0.0.1:1")
    assert ended.code == 5
