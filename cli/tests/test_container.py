"""`minga container` as a container starts it: with a terminal (a pty), and without one."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from minga_cli.localprocess import module_command
from tests.support.terminal import DOWN, ENTER, LIMIT_SECONDS, UP, Terminal

MENU = "What shall it be?"


@pytest.fixture
def environment(tmp_path: Path, short_dir: Path) -> dict[str, str]:
    """What the image sets, with nobody at the network's addresses."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MINGA_")}
    return kept | {
        "TERM": "xterm",
        "PROMPT_TOOLKIT_NO_CPR": "1",
        "MINGA_SHARE_DIR": str(tmp_path / "share"),
        "MINGA_CONTROL": str(short_dir / "peer.sock"),
        "MINGA_LISTEN": "127.0.0.1:0",
        "MINGA_REGISTRY": "127.0.0.1:1",
        "MINGA_LOCATOR": "http://127.0.0.1:1",
    }


@pytest.fixture
def terminal(environment: dict[str, str]) -> Iterator[Terminal]:
    """`minga container` on a terminal."""
    with closing(Terminal(module_command("minga_cli", "container"), environment)) as terminal:
        yield terminal


def test_on_a_terminal_there_is_the_shell_even_when_nothing_else_is(terminal: Terminal) -> None:
    """1. Its own peer starts. 2. That no locator answers is reported. 3. A command says so too. 4. It closes."""
    terminal.shows("a peer is running and shares")
    terminal.shows("minga: the locator at http://127.0.0.1:1 does not answer")
    terminal.shows(MENU)
    terminal.type(DOWN, DOWN, ENTER)
    terminal.shows("minga: the locator at http://127.0.0.1:1 does not answer")
    terminal.shows(MENU)
    terminal.type(UP, ENTER)
    assert terminal.ended() == 0
    assert "Traceback" not in terminal.text


def test_the_shell_goes_on_without_a_peer_that_does_not_start(environment: dict[str, str]) -> None:
    """Its reason is printed; the rest of the menu may still be of use."""
    settings = environment | {"MINGA_CAPACITY": "plenty"}
    with closing(Terminal(module_command("minga_cli", "container"), settings)) as terminal:
        terminal.shows("minga: the peer ended with exit code 2")
        terminal.shows("MINGA_CAPACITY")
        terminal.shows("going on without a peer here")
        terminal.shows(MENU)
        terminal.type("\x03")
        assert terminal.ended() == 0
        assert "Traceback" not in terminal.text


def test_sigterm_ends_the_shell_and_its_peer(terminal: Terminal, environment: dict[str, str]) -> None:
    """As `docker stop` does; the socket is nobody's afterwards."""
    terminal.shows(MENU)
    terminal.process.send_signal(signal.SIGTERM)
    assert terminal.ended() == 128 + signal.SIGTERM
    status = subprocess.run(
        module_command("minga_cli", "status"), env=environment, capture_output=True, timeout=LIMIT_SECONDS, check=False
    )
    assert status.returncode != 0
    assert b"no peer runs on this machine" in status.stderr


def test_without_a_terminal_there_is_the_daemon(environment: dict[str, str]) -> None:
    """It answers commands beside it, and SIGTERM ends it in order."""
    process = subprocess.Popen(
        module_command("minga_cli", "container"), env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        line = next(line for line in process.stdout if b"peer_started" in line)
        assert environment["MINGA_SHARE_DIR"].encode() in line
        status = subprocess.run(
            module_command("minga_cli", "status"),
            env=environment,
            capture_output=True,
            timeout=LIMIT_SECONDS,
            check=True,
        )
        assert b"serves" in status.stdout
        process.send_signal(signal.SIGTERM)
        process.stdout.read()
        assert process.wait(LIMIT_SECONDS) == 0
    finally:
        process.kill()
        process.communicate(timeout=LIMIT_SECONDS)
