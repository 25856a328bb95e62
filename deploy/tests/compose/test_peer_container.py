"""A peer's container, the way people try it first."""

from collections.abc import Iterator
from contextlib import closing

import pytest

from deploy.tests.support.engine import Container, Engine, eventually
from tests.support.terminal import DOWN, ENTER, UP, Terminal

IMAGE = "minga/peer:dev"
MENU = "What shall it be?"
PLACES = ("--env=MINGA_OPEN=1", "--env=MINGA_REGISTRY=registry:50051", "--env=MINGA_LOCATOR=http://locator:50052")


@pytest.fixture(scope="module")
def place(engine: Engine) -> Iterator[list[str]]:
    """A network with its directory: the flags of `docker run` that put a container into it."""
    network = f"--network={engine.network('peers')}"
    parts = [engine.run(network, "--network-alias=redis", "minga-test/redis:7", "--save", "")]
    for part in ("registry", "locator"):
        words = [network, f"--network-alias={part}", "--env=MINGA_OPEN=1"]
        words += ["--env=MINGA_REDIS_URL=redis://redis:6379/0", f"minga/{part}:dev"]
        parts.append(engine.run(*words))
    for part, each in zip(("registry", "locator"), parts[1:], strict=True):
        each.wait_log(f"{part}_started")
    yield [network, *PLACES, "--read-only"]
    for each in parts:
        each.remove()


@pytest.fixture(scope="module")
def peers(engine: Engine, place: list[str]) -> Iterator[list[Container]]:
    """Two, started with nothing but the network's addresses."""
    made = [engine.run(*place, IMAGE) for _ in range(2)]
    for peer in made:
        peer.wait_log("lease_granted")
    yield made
    for peer in made:
        peer.remove()


def on_terminal(engine: Engine, *flags: str) -> Terminal:
    """`docker run -it` of the image, in an open network, and nothing else."""
    words = ["docker", "run", "-it", "--rm", "--label", engine.label, "-e", "PROMPT_TOOLKIT_NO_CPR=1"]
    words += ["-e", "MINGA_OPEN=1", *flags, IMAGE]
    return Terminal(words, engine.environment | {"TERM": "xterm"})


def share(owner: Container, name: str, other: Container) -> None:
    """Put a file into a peer's shared folder, and wait until another finds it."""
    owner.exec("sh", "-c", f"cat >/srv/minga/{name}", stdin=b"hello")
    eventually(lambda: name in other.exec("minga", "ls").out, f"{name} is listed")


def test_with_a_terminal_and_nothing_else_there_is_the_shell(engine: Engine) -> None:
    """What is missing is said in words, by the menu's commands too; and it closes."""
    with closing(on_terminal(engine, "--read-only")) as terminal:
        terminal.shows("a peer is running and shares /srv/minga")
        terminal.shows("minga: the locator at http://127.0.0.1:50052 does not answer")
        terminal.shows(MENU)
        terminal.type(DOWN, DOWN, ENTER)
        terminal.shows("minga: the locator at http://127.0.0.1:50052 does not answer")
        terminal.shows(MENU)
        terminal.type(UP, ENTER)
        assert terminal.ended() == 0
        assert "Traceback" not in terminal.text


def test_there_is_a_shell_when_its_peer_cannot_start(engine: Engine) -> None:
    """It says why."""
    with closing(on_terminal(engine, "-e", "MINGA_CAPACITY=plenty")) as terminal:
        terminal.shows("minga: the peer ended with exit code 2")
        terminal.shows(MENU)
        terminal.type("\x03")
        assert terminal.ended() == 0
        assert "Traceback" not in terminal.text


def test_the_shell_lists_what_others_share(engine: Engine, place: list[str], peers: list[Container]) -> None:
    """Once it is given the addresses of the network, which its own peer joins."""
    share(peers[0], "from-shell.txt", peers[1])
    with closing(on_terminal(engine, *place)) as terminal:
        terminal.shows(MENU)
        terminal.type(DOWN, DOWN, ENTER)
        terminal.shows("from-shell.txt")
        terminal.shows(MENU)
        terminal.type(UP, ENTER)
        assert terminal.ended() == 0


def test_a_command_alone_needs_no_daemon(engine: Engine, place: list[str], peers: list[Container]) -> None:
    """`docker run --rm minga/peer get` and `put`, with a read-only root."""
    share(peers[0], "alone.txt", peers[1])
    got = engine.run_once(*place, IMAGE, "get", "alone.txt", "-o", "/srv/minga/")
    assert "to /srv/minga/alone.txt" in got.out
    engine.run_once(*place, IMAGE, "put", "/etc/hostname", "--as", "host.txt")
    assert "host.txt" in peers[0].exec("minga", "ls").out
    away = engine.run_once(IMAGE, "ls", check=False)
    assert (away.code, away.err.count("\n")) == (5, 1)


def test_another_user_may_run_it(engine: Engine, place: list[str]) -> None:
    """`--user` with a folder of that user's: for those who share a folder of their own."""
    peer = engine.run(*place, "--user=4321:4321", "--tmpfs=/srv/minga:uid=4321", IMAGE)
    peer.wait_log("lease_granted")
    assert peer.exec("minga", "status", "--json").json["registered"]
    peer.remove()


def test_without_a_terminal_there_is_the_daemon_and_exec_talks_to_it(peers: list[Container]) -> None:
    """`docker exec … minga get` needs no flag; the file lands in the volume, and the peer that fetched it holds it.
    `docker stop` takes a peer out of the directory at once, not when its lease runs out."""
    first, second = peers
    share(first, "fetched.txt", second)
    second.exec("minga", "get", "fetched.txt")
    assert second.exec("cat", "/srv/minga/fetched.txt").out == "hello"
    status = second.exec("minga", "status", "--json").json
    assert (status["registered"], status["pid"], status["share_dir"]) == (True, 1, "/srv/minga")

    def count() -> int:
        return int(second.exec("minga", "info", "fetched.txt", "--json").json["versions"][0]["complete_count"])

    eventually(lambda: count() == 2, "both hold it")
    assert first.stop() < 5
    listed = {peer["peer_id"] for peer in second.exec("minga", "peers", "--json").json["peers"]}
    assert (first.id[:12] in listed, second.id[:12] in listed) == (False, True)
