"""Running a command's coroutine: an event loop, signals that end it quickly and cleanly, and the root of its trace."""

import asyncio
import os
import signal
import sys
from collections.abc import Coroutine
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from minga.errors import MingaError
from minga_cli.exit_codes import EXIT_CODES, ExitCode
from minga_cli.output import note

if TYPE_CHECKING:
    from minga import ClientSettings

T = TypeVar("T")

CLEANUP_LIMIT = timedelta(seconds=3)
"""Time that a command gets for closing connections and files after the first signal."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run_async(
    work: Coroutine[Any, Any, T], *, on_interrupt: str = "interrupted", cleanup_limit: timedelta = CLEANUP_LIMIT
) -> T:
    """Run `work` and return its result.

    SIGINT, SIGTERM and SIGHUP cancel it; once it has cleaned up, or after the limit, or at a second signal, one line
    says `on_interrupt` and the process ends with 128 + the signal.
    """
    with asyncio.Runner() as runner:
        return runner.run(_interruptible(work, on_interrupt, cleanup_limit))


async def _interruptible(work: Coroutine[Any, Any, T], on_interrupt: str, cleanup_limit: timedelta) -> T:
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(work)
    received: list[int] = []

    def end() -> None:
        # Not by an exception: the interpreter would wait for threads that hash or read a large file.
        with suppress(OSError, MingaError):
            sys.stdout.flush()
        sys.stderr.write(f"\rminga: {on_interrupt}\n" if sys.stderr.isatty() else f"minga: {on_interrupt}\n")
        sys.stderr.flush()
        os._exit(128 + received[0])

    def interrupt(number: int) -> None:
        received.append(number)
        if len(received) > 1:
            end()
        task.cancel()
        loop.call_later(cleanup_limit.total_seconds(), end)

    for number in _SIGNALS:
        loop.add_signal_handler(number, interrupt, number)
    try:
        return await task
    except BaseException:
        # Cancelled work may end with an error of its own; the exit code is the signal's.
        if received:
            end()
        raise
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)


async def traced(settings: "ClientSettings", command: str, work: Coroutine[Any, Any, T]) -> T:
    """Run a command's work as the root of a trace, which all that other processes do for it joins.

    Where traces are on, this takes up to a second more to send the last spans.
    """
    if settings.traces is None:
        return await work
    from minga.diagnostics import export_traces, span
    from minga_cli.version import VERSION

    try:
        with (
            export_traces(settings.traces, "minga-command", VERSION, retry=False, on_loss=_print_loss),
            span(f"minga {command}", {"process.executable.name": "minga"}) as whole,
        ):
            try:
                result = await work
            except MingaError as error:
                whole.set_attribute("process.exit.code", int(EXIT_CODES[error.code]))
                raise
            whole.set_attribute("process.exit.code", result if isinstance(result, int) else int(ExitCode.OK))
            return result
    finally:
        work.close()  # when it never began; else this does nothing


def _print_loss(problem: str) -> None:
    """Print one line; the command itself has not failed."""
    note(f"minga: the trace of this command is not whole: {problem}")
