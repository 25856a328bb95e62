"""A peer's container, the way people try it first."""

import json
from collections.abc import Iterator
from contextlib import closing

import pytest

from deploy.tests.support.engine import Container, Engine, Network, eventually
from tests.support.terminal import DOWN, ENTER, UP, Terminal

IMAGE = "minga/peer:dev"
MENU = "What shall it be?"


@pytest.fixture(scope="module")
def network(images: Engine) -> Iterator[Network]:
    """A network with its directory."""
    made = images.network("peers")
    env = {"MINGA_REDIS_URL": "redis://redis:6379/0"}
    parts = [images.run("minga-test/redis:7", "--save", "", network=made, aliases=["redis"])]
    parts += [
        images.run(f"minga/{part}:dev", network=made, aliases=[part], env=env) for part in ("registry", "locator")
    ]
    for part in parts[1:]:
        part.wait_healthy()
    yield made
    for part in parts:
        part.remove()


ENV = {"MINGA_REGISTRY": "registry:50051", "MINGA_LOCATOR": "http://locator:50052"}


@pytest.fixture
def peers(images: Engine, network: Network) -> Iterator[list[Container]]:
    """Two, started with nothing but the network's addresses."""
    made = [images.run(IMAGE, network=network, env=ENV, read_only=True) for _ in range(2)]
    for peer in made:
        peer.wait_log("lease_granted")
    yield made
    for peer in made:
        peer.remove()


def on_terminal(engine: Engine, *flags: str) -> Terminal:
    """`docker run -it` of the image and nothing else."""
    name, value = engine.label.split("=")
    words = [
        "docker",
        "run",
        "-it",
        "--rm",
        "--label",
        f"{name}={value}",
        "-e",
        "PROMPT_TOOLKIT_NO_CPR=1",
        *flags,
        IMAGE,
    ]
    return Terminal(words, engine.environment | {"TERM": "xterm"})


def test_with_a_terminal_and_nothing_else_there_is_the_shell(images: Engine) -> None:
    """1. What is missing is told in words. 2. The menu is there, and its commands say the same. 3. It closes."""
    with closing(on_terminal(images, "--read-only")) as terminal:
        terminal.shows("a peer is running and shares /srv/minga")
        terminal.shows("minga: the locator at http://127.0.0.1:50052 does not answer")
        terminal.shows(MENU)
        terminal.type(DOWN, DOWN, ENTER)
        terminal.shows("minga: the locator at http://127.0.0.1:50052 does not answer")
        terminal.shows(MENU)
        terminal.type(UP, ENTER)
        assert terminal.ended() == 0
        assert "Traceback" not in terminal.text


def test_the_shell_is_told_when_its_peer_cannot_start(images: Engine) -> None:
    """A registry whose name nobody knows is no reason to have no shell."""
    flags = ["-e", "MINGA_CAPACITY=plenty", "-e", "MINGA_LOCATOR=http://nowhere.invalid:50052"]
    with closing(on_terminal(images, *flags)) as terminal:
        terminal.shows("minga: the peer ended with exit code 2")
        terminal.shows("going on without a peer here")
        terminal.shows("minga: the locator at http://nowhere.invalid:50052 does not answer")
        terminal.shows(MENU)
        terminal.type("\x03")
        assert terminal.ended() == 0
        assert "Traceback" not in terminal.text


def test_the_shell_works_once_it_is_told_where_the_network_is(
    images: Engine, network: Network, peers: list[Container]
) -> None:
    """Its own peer joins, and lists what others share."""
    write(peers[0], "from-shell.txt", "listed")
    eventually(lambda: "from-shell.txt" in peers[1].exec("minga", "ls").out, "the file is known")
    flags = [word for name, value in ENV.items() for word in ("-e", f"{name}={value}")]
    with closing(on_terminal(images, "--network", str(network), *flags)) as terminal:
        terminal.shows("a peer is running and shares /srv/minga")
        terminal.shows(MENU)
        terminal.type(DOWN, DOWN, ENTER)
        terminal.shows("from-shell.txt")
        terminal.shows(MENU)
        terminal.type(UP, ENTER)
        assert terminal.ended() == 0


def test_without_a_terminal_there_is_the_daemon_and_exec_talks_to_it(peers: list[Container]) -> None:
    """`docker exec … minga get` needs no flag; the file lands in the volume, and its taker is a holder."""
    first, second = peers
    write(first, "fetched.txt", "hello")
    eventually(lambda: "fetched.txt" in second.exec("minga", "ls").out, "the file is known")
    got = second.exec("minga", "get", "fetched.txt")
    assert "/srv/minga/fetched.txt" in got.out
    assert second.exec("cat", "/srv/minga/fetched.txt").out == "hello"
    eventually(lambda: sources(first, "fetched.txt") == 2, "both are holders")
    status = second.exec("minga", "status", "--json").json
    assert (status["registered"], status["pid"], status["share_dir"]) == (True, 1, "/srv/minga")


def test_a_command_alone_needs_no_daemon(images: Engine, network: Network, peers: list[Container]) -> None:
    """`docker run --rm minga/peer ls`, `get` and `put`, with a read-only root."""
    write(peers[0], "alone.txt", "x" * 10)
    options = {"network": network, "env": ENV, "read_only": True}
    eventually(lambda: "alone.txt" in images.run_once(IMAGE, "ls", **options).out, "the file is known")  # type: ignore[arg-type]
    got = images.run_once(IMAGE, "get", "alone.txt", "-o", "/srv/minga/", **options)  # type: ignore[arg-type]
    assert "to /srv/minga/alone.txt" in got.out
    put = images.run_once(IMAGE, "put", "/etc/hostname", "--as", "host.txt", **options)  # type: ignore[arg-type]
    assert put.code == 0
    assert sources(peers[0], "host.txt") == 1
    away = images.run_once(IMAGE, "ls", check=False)
    assert (away.code, away.err.count("\n")) == (5, 1)


def test_another_user_may_run_it(images: Engine, network: Network) -> None:
    """`--user` with a folder of that user's: for those who share a folder of their own."""
    folder = ["--user", "4321:4321", "--tmpfs", "/srv/minga:uid=4321"]
    peer = images.run(IMAGE, network=network, env=ENV, read_only=True, options=folder)
    peer.wait_log("lease_granted")
    assert peer.exec("minga", "status", "--json").json["registered"]
    peer.remove()


def test_a_stopped_peer_is_gone_from_the_directory_at_once(peers: list[Container]) -> None:
    """`docker stop` is a leave, not a lease that runs out."""
    first, second = peers
    assert first.stop() < 5
    alive = [peer["peer_id"] for peer in second.exec("minga", "peers", "--json").json["peers"]]
    # Peers of other tests may be there as well: those were killed, and their leases run out.
    assert second.id[:12] in alive
    assert first.id[:12] not in alive


def write(peer: Container, name: str, text: str) -> None:
    """Puts a file into a peer's shared folder."""
    peer.exec("sh", "-c", f"cat >/srv/minga/{name}", stdin=text.encode())


def sources(peer: Container, name: str) -> int:
    """How many hold the newest version of a file whole."""
    ended = peer.exec("minga", "info", name, "--json", check=False)
    return int(json.loads(ended.out)["versions"][0]["complete_count"]) if ended.code == 0 else 0
