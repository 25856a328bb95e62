"""A process from start to end: event loop, signals, last words."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from minga_core.errors import Code, MingaError

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_CONFLICT = 8

_EXIT_CODES = {
    Code.INVALID_SETTINGS: EXIT_USAGE,
    Code.INVALID_ARGUMENT: EXIT_USAGE,
    Code.LEASE_SUPERSEDED: EXIT_CONFLICT,
    Code.ALREADY_RUNNING: EXIT_CONFLICT,
}


def run_process(main: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> int:
    """Runs `main(stop)` on uvloop and gives the exit code.

    SIGTERM and SIGINT set `stop`, a second one of them ends the process at once. A MingaError is one line on standard
    error and exit code 2 for wrong settings, 8 for a conflict with another process, else 1; anything else is a bug and
    keeps its traceback.
    """
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_with_signals(main))
    except MingaError as error:
        print_error(error)
        return _EXIT_CODES.get(error.code, EXIT_FAILED)
    return EXIT_OK


def print_error(error: MingaError) -> None:
    """One line on standard error: what is wrong, and what to do."""
    hint = f" ({error.hint})" if error.hint else ""
    sys.stderr.write(f"minga: {error}{hint}\n")


def write_port_file(path: Path | None, address: str) -> None:
    """Tells where the process is bound: `path` holds `host:port` once it is ready, whole or not at all."""
    if path is None:
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(address)
    temporary.replace(path)


async def _with_signals(main: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def asked() -> None:
        if stop.is_set():
            os._exit(130)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked)
    await main(stop)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop
