"""A process from start to end: event loop, signals, exit code."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from minga_core.errors import Code, MingaError, SettingsError, UnavailableError
from minga_runtime.descriptors import raise_limit

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_UNAVAILABLE = 5
EXIT_STORAGE = 6
EXIT_CONFLICT = 8
"""The same numbers as those of the `minga` command (docs/cli.md)."""

_EXIT_CODES = {
    Code.INVALID_SETTINGS: EXIT_USAGE,
    Code.INVALID_ARGUMENT: EXIT_USAGE,
    Code.LEASE_SUPERSEDED: EXIT_CONFLICT,
    Code.ALREADY_RUNNING: EXIT_CONFLICT,
    Code.STORAGE: EXIT_STORAGE,
    Code.NO_SPACE: EXIT_STORAGE,
}


class StopSignal(asyncio.Event):
    """Set when the process has to end: by a signal, or because a part of it failed."""

    error: BaseException | None = None

    def fail(self, error: BaseException) -> None:
        """End the process because of an error. `run_process` reports the first of them."""
        self.error = self.error or error
        self.set()


Main = Callable[[StopSignal], Coroutine[Any, Any, None]]


def run_process(main: Main) -> int:
    """Run `main(stop)` on uvloop, with as many open files as the system allows. Returns the exit code.

    SIGTERM, SIGINT and SIGHUP set `stop`; a second SIGTERM or SIGINT ends the process at once. SIGHUP stays ignored
    where it was (nohup). A MingaError becomes one line on standard
    error and exit code 2 for wrong settings, 5 for an unavailable dependency, 6 for a disk error, 8 for a conflict with
    another process, else 1; anything else is a bug and keeps its traceback.
    """
    raise_limit()
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_with_signals(main))
    except MingaError as error:
        print_error(error)
        return exit_code_for(error)
    return EXIT_OK


def exit_code_for(error: MingaError) -> int:
    """The exit code of a process that ends with `error`; see `run_process`."""
    if isinstance(error, UnavailableError):
        return EXIT_UNAVAILABLE
    return _EXIT_CODES.get(error.code, EXIT_FAILED)


def print_error(error: MingaError) -> None:
    """Print to standard error what is wrong and what to do: one line, and for settings a line for each wrong value."""
    hint = f" ({error.hint})" if error.hint else ""
    # Standard error may be closed: the exit code says the rest.
    with contextlib.suppress(OSError, AttributeError):
        for line in f"{error}{hint}".splitlines():
            sys.stderr.write(f"minga: {line}\n")


def write_port_file(path: Path | None, address: str) -> None:
    """Write the bound `host:port` to `path`, atomically. None: do nothing.

    Raises SettingsError when the file cannot be written.
    """
    if path is None:
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(address)
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):  # the folder itself may be what is wrong
            temporary.unlink(missing_ok=True)
        raise SettingsError(f"MINGA_PORT_FILE: cannot write {path}: {error.strerror}") from error


async def _with_signals(main: Main) -> None:
    stop = StopSignal()
    loop = asyncio.get_running_loop()

    def asked(number: int) -> None:
        if stop.is_set():
            os._exit(128 + number)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked, number)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        # A terminal that closes sends it twice, by the kernel and by the shell.
        loop.add_signal_handler(signal.SIGHUP, stop.set)
    await main(stop)
    if stop.error is not None:
        raise stop.error


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop
