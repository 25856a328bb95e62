"""How commands end: usage errors, bugs, signals, pipes that close, and how quickly help comes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from minga_cli.main import run

from .conftest import FakeDaemon, FakeLocator, Minga

COMMAND = [sys.executable, "-m", "minga_cli"]
HEAVY = ("asyncio", "httpx", "grpc", "questionary", "pydantic", "rich.progress", "minga.standalone")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["lss"], "minga: No such command 'lss'. Did you mean 'ls'? (see `minga --help`)\n"),
        (["ls", "--nope"], "minga: No such option: --nope (see `minga ls --help`)\n"),
        (["info"], "minga: Missing argument 'NAME' (see `minga info --help`)\n"),
        (
            ["ls", "--sort", "age"],
            "minga: Invalid value for '--sort' / '-s': 'age' is not one of 'name', 'size', 'time' "
            "(see `minga ls --help`)\n",
        ),
    ],
)
def test_a_usage_error_is_one_line_and_2(minga: Minga, arguments: list[str], line: str) -> None:
    """With the way to the help."""
    ended = minga(*arguments)
    assert (ended.code, ended.out, ended.err) == (2, "", line)


def test_a_wrong_setting_is_2_and_named(minga: Minga, monkeypatch: pytest.MonkeyPatch) -> None:
    """The setting's name and the reason."""
    ended = minga("--locator", "ftp://x", "ls")
    assert ended.code == 2
    assert ended.err.startswith("minga: --locator: ")
    monkeypatch.setenv("MINGA_LOCATR", "http://x")
    assert "did you mean MINGA_LOCATOR?" in minga("ls").err


def test_a_bug_is_1_with_a_traceback(minga: Minga, monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody foresaw is shown in full."""

    def explode(*_: object) -> None:
        raise ZeroDivisionError("boom")

    monkeypatch.setattr("minga_cli.listing.run_look_up", explode)
    ended = minga("ls")
    assert ended.code == 1
    assert "ZeroDivisionError: boom" in ended.err
    assert ended.err.endswith("minga: this is a bug in Minga; the lines above say where\n")


def test_no_command_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    """`minga` alone lists the commands."""
    assert run([]) == 2
    assert "Commands:" in capsys.readouterr().out


def test_help_and_commands_import_nothing_heavy() -> None:
    """`minga --help` and the start of any command stay quick."""
    code = "import sys; sys.argv = ['minga']; import minga_cli.main; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert [name for name in HEAVY if name in loaded] == []


_LOADED = """
import sys
import minga_cli.__main__ as start
import minga_cli.main as command

command.main = lambda: None
start.main()
code = command.run(sys.argv[1:])
print(*sys.modules, file=sys.stderr)
sys.exit(code)
"""


def test_a_download_by_the_daemon_loads_only_what_it_needs(daemon: FakeDaemon) -> None:
    """Cold, nearly all of its time is imports: no client of the locator, no metrics, no search of all packages."""
    daemon.contents = {"a": b"x"}
    command = [sys.executable, "-c", _LOADED, "--control", str(daemon.socket), "get", "a"]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, env=clean())
    assert ended.stdout.startswith("a: 1 B in ")
    spared = ("httpx", "prometheus_client", "importlib.metadata", "urllib.request", "rich", "jwt", "cryptography")
    assert [name for name in spared if name in ended.stderr.split()] == []


_ENDLESS = """
import asyncio, os, sys
from minga.connecting import Connections
from minga_engine.parts.places import OpenFile, Place
from minga_cli.main import main

class Endless:
    size_bytes = 2**40
    file = OpenFile(os.memfd_create("zeros"))
    os.truncate(file.descriptor, size_bytes)
    async def place(self, offset, length):
        if offset and sys.argv[1:]:
            await asyncio.Event().wait()
        return Place(self.file, offset, offset + length)
    async def aclose(self):
        pass

async def source(*_):
    return Endless()

Connections.source = source
main(["cat", "a"])
"""


def test_a_signal_ends_cat_whose_reader_reads_nothing() -> None:
    """Its write waits in a thread."""
    command = subprocess.Popen([sys.executable, "-c", _ENDLESS], stdout=-1, stderr=-1, env=clean())
    assert command.stdout is not None
    assert os.read(command.stdout.fileno(), 10) == bytes(10)
    command.send_signal(signal.SIGTERM)
    try:
        assert command.wait(20) == 143
    finally:
        command.kill()
        command.communicate()


def test_cat_ends_with_its_reader_while_it_waits_for_a_source() -> None:
    """`minga cat NAME | head -c 10`: nothing is written for as long as nothing comes."""
    command = subprocess.Popen([sys.executable, "-c", _ENDLESS, "stuck"], stdout=-1, stderr=-1, env=clean())
    assert command.stdout is not None
    assert command.stderr is not None
    size_bytes = 0
    while size_bytes < 1024 * 1024:
        size_bytes += len(os.read(command.stdout.fileno(), 1024 * 1024))
    command.stdout.close()
    try:
        assert (command.wait(20), command.stderr.read()) == (141, b"")
    finally:
        command.kill()
        command.communicate()


def test_a_closed_pipe_ends_quietly(locator: FakeLocator, tmp_path: Path) -> None:
    """`minga ls | head` is no error worth a word."""
    locator.page = 1000
    for number in range(3000):
        locator.share(f"{number:06d}-{'x' * 200}")
    command = subprocess.Popen([*COMMAND, "--locator", locator.url, "ls"], stdout=-1, stderr=-1, env=clean())
    assert command.stdout is not None
    assert command.stderr is not None
    command.stdout.readline()
    command.stdout.close()
    errors = command.stderr.read()
    command.stderr.close()
    assert (command.wait(20), errors) == (141, b"")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["get", "x", "--wait", "inf"], 2, "--wait inf is not a number of seconds"),
        (["get", "x", "--wait", "1e300"], 2, "--wait 1e+300 is not"),
        (["up", "--base-port", "0", "--dir", "/dev/null"], 6, "cannot make the network's folders"),
        (["up", "--base-port", "0", "--dir", "/dev/null/x"], 6, "cannot make the network's folders"),
        (["find", "\udcff"], 2, "not valid UTF-8"),
        (["--control", "/tmp/\udcff", "status"], 2, "--control: the path is not valid UTF-8"),
    ],
)
def test_wrong_input_is_one_line(minga: Minga, arguments: list[str], code: int, words: str) -> None:
    """Fault C20: tracebacks for wrong input."""
    ended = minga(*arguments)
    assert (ended.code, ended.err.count("\n")) == (code, 1)
    assert words in ended.err


def test_a_deleted_folder_is_no_bug(minga: Minga, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault C20: `put .`, or a relative --control, where the current folder was deleted."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    here.rmdir()
    for arguments in (["put", "."], ["--control", "relative", "status"]):
        ended = minga(*arguments)
        assert (ended.code, ended.err) == (2, "minga: the current folder was deleted (change to another one)\n")


@pytest.mark.parametrize("redirection", [">&-", ">/dev/full"])
@pytest.mark.parametrize("arguments", [["ls"], ["ls", "--json"], ["--version"], ["ls", "--help"]])
def test_output_that_cannot_be_written_is_one_line(
    locator: FakeLocator, redirection: str, arguments: list[str]
) -> None:
    """Fault C19: a closed or full output was "a bug" with a traceback. More than a buffer, and less."""
    locator.page = 1000
    for number in range(1 if "--json" in arguments else 200):
        locator.share(f"{number:06d}-{'x' * 200}")
    line = ["sh", "-c", f'"$@" {redirection}', "sh", *COMMAND, "--locator", locator.url, *arguments]
    ended = subprocess.run(line, capture_output=True, text=True, check=False, env=clean())
    assert ended.stderr.startswith("minga: cannot write to standard output: ")
    assert (ended.returncode, ended.stderr.count("\n")) == (6, 1)


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full", "<&-", "<&- 2>&-"])
def test_errors_that_cannot_be_written_change_nothing(locator: FakeLocator, redirection: str) -> None:
    """Fault C19: `get … 2>&-` was a bug; the exit code is that of what went wrong."""
    line = ["sh", "-c", f'"$@" {redirection}', "sh", *COMMAND, "--locator", locator.url, "get", "--standalone", "none"]
    ended = subprocess.run(line, capture_output=True, text=True, check=False, env=clean())
    assert (ended.returncode, ended.stdout) == (3, "")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_ends_a_download_at_once(
    daemon: FakeDaemon, locator: FakeLocator, number: signal.Signals, code: int
) -> None:
    """One line that says it resumes; the daemon stops it."""
    daemon.contents, daemon.hang, daemon.locator = {"a": b"x" * 100}, True, locator.url
    options = ["--locator", locator.url, "--control", str(daemon.socket)]
    command = subprocess.Popen([*COMMAND, *options, "get", "a"], stdout=-1, stderr=-1, env=clean(), text=True)
    deadline = time.monotonic() + 20
    while not daemon.asked and time.monotonic() < deadline:
        time.sleep(0.01)
    command.send_signal(number)
    # The daemon says nothing for as long as the test lasts.
    out, err = command.communicate(timeout=20)
    assert (command.returncode, out) == (code, "")
    assert err == "minga: interrupted; what was fetched is kept, and the same command goes on from there\n"
    assert daemon.cancelled.wait(5)


def clean() -> dict[str, str]:
    """The environment without our settings."""
    return {name: value for name, value in os.environ.items() if not name.startswith("MINGA_")}
