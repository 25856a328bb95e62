"""Logs: stable events with fields, as JSON and as text."""

import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from minga_runtime.logs import bound, configure_logging, log_event

log = logging.getLogger("example")


@pytest.fixture(autouse=True)
def restored_logging() -> Iterator[None]:
    """The root logger as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


class Terminal(io.StringIO):
    """A stream that says it is one."""

    def isatty(self) -> bool:
        """See io.IOBase."""
        return True


def test_machines_get_json_lines_and_terminals_get_text() -> None:
    """auto decides by the stream."""
    pipe, terminal = io.StringIO(), Terminal()
    configure_logging("info", "auto", pipe)
    log_event(log, logging.INFO, "lease_granted", ttl_seconds=15)
    configure_logging("info", "auto", terminal)
    log_event(log, logging.INFO, "lease_granted", ttl_seconds=15, reason="two words")
    entry = json.loads(pipe.getvalue())
    assert (entry["event"], entry["level"], entry["ttl_seconds"]) == ("lease_granted", "info", 15)
    assert terminal.getvalue().endswith('info    lease_granted ttl_seconds=15 reason="two words"\n')


def test_servers_do_not_log_their_start_beside_our_events() -> None:
    """What is wrong at them is shown."""
    stream = io.StringIO()
    configure_logging("info", "text", stream)
    server = logging.getLogger("uvicorn.error")
    server.info("Waiting for application startup.")
    server.warning("Invalid HTTP request received.")
    assert stream.getvalue().splitlines()[0].endswith("warning Invalid HTTP request received.")


def test_no_value_breaks_a_line_or_reaches_the_terminal_as_a_command() -> None:
    """Text of another machine is escaped."""
    evil: dict[str, Any] = {"why": "a\nb\x1b[2J", "surrogate": "\udc80"}
    for log_format in ("text", "json"):
        stream = io.StringIO()
        configure_logging("info", log_format, stream)  # type: ignore[arg-type]  # a loop over both
        log_event(log, logging.INFO, "refused", **evil)
        assert stream.getvalue().count("\n") == 1
        assert "\x1b" not in stream.getvalue()
        stream.getvalue().encode()


def test_fields_never_hide_what_every_line_has() -> None:
    """A field called `level` is kept beside the level."""
    stream = io.StringIO()
    configure_logging("info", "json", stream)
    log_event(log, logging.INFO, "x", level=3, event="y", logger="z")
    entry = json.loads(stream.getvalue())
    assert (entry["level"], entry["event"], entry["field_level"], entry["field_event"]) == ("info", "x", 3, "y")


def test_bound_fields_are_on_every_event_of_the_block() -> None:
    """Ids are bound once."""
    stream = io.StringIO()
    configure_logging("info", "json", stream)
    with bound(peer_id="a"), bound(call=1):
        log.info("inside")
    log.info("outside")
    inside, outside = map(json.loads, stream.getvalue().splitlines())
    assert (inside["peer_id"], inside["call"]) == ("a", 1)
    assert "peer_id" not in outside


def test_callers_that_go_away_fill_no_log() -> None:
    """What gRPC says of them, and that alone: other errors of its are logged."""
    pipe = io.StringIO()
    configure_logging("info", "json", pipe)
    grpc_log = logging.getLogger("grpc._cython.cygrpc")
    grpc_log.error("ExecuteBatchError raised in core by servicer method [%s]", "/x")
    grpc_log.error("Unexpected [%s] raised by servicer method [%s]", "KeyError", "/x")
    (line,) = pipe.getvalue().splitlines()
    assert "KeyError" in line


LOGGING = """
import logging, sys
from minga_runtime.logs import configure_logging, log_event
configure_logging()
for number in range(1000):
    log_event(logging.getLogger("x"), logging.INFO, "event", number=number)
sys.exit(3)
"""


@pytest.mark.parametrize("output", ["closed pipe", "full disk", "closed"])
def test_a_log_that_cannot_be_written_is_silent(output: str) -> None:
    """No traceback, neither for each event nor at the end, and the exit code is the process' own."""
    closed = {"closed pipe": "| true", "full disk": ">/dev/full", "closed": ">&-"}[output]
    command = f'set -o pipefail; "$0" -c "$1" {closed}'
    found = subprocess.run(
        ["bash", "-c", command, sys.executable, LOGGING], capture_output=True, text=True, timeout=30, check=False
    )
    assert (found.stderr, found.returncode) == ("", 3)
