"""Runs a command's coroutine: an event loop, and signals that end it quickly and cleanly."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any, TypeVar

T = TypeVar("T")

CLEANUP_LIMIT = timedelta(seconds=3)
"""What a command gets for closing connections and files once it was told to stop."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run_async(
    work: Coroutine[Any, Any, T],
    *,
    on_interrupt: str = "interrupted",
    cleanup_limit: timedelta = CLEANUP_LIMIT,
    leave: Callable[[int], None] = os._exit,
) -> T:
    """The result of `work`.

    SIGINT, SIGTERM and SIGHUP cancel it; once it has cleaned up, or after the limit, or at a second signal, one line
    says `on_interrupt` and `leave` ends the process with 128 + the signal.
    """
    with asyncio.Runner() as runner:
        return runner.run(_interruptible(work, on_interrupt, cleanup_limit, leave))


async def _interruptible(
    work: Coroutine[Any, Any, T], on_interrupt: str, cleanup_limit: timedelta, leave: Callable[[int], None]
) -> T:
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(work)
    received: list[int] = []

    def end() -> None:
        # Not by an exception: threads that hash or read a big file would be waited for.
        sys.stdout.flush()
        sys.stderr.write(f"\rminga: {on_interrupt}\n" if sys.stderr.isatty() else f"minga: {on_interrupt}\n")
        sys.stderr.flush()
        leave(128 + received[0])

    def asked(number: int) -> None:
        received.append(number)
        if len(received) > 1:
            end()
        task.cancel()
        loop.call_later(cleanup_limit.total_seconds(), end)

    for number in _SIGNALS:
        loop.add_signal_handler(number, asked, number)
    try:
        return await task
    except BaseException:
        # A command that is cancelled may end with an error of its own; the signal is what people want to hear of.
        if received:
            end()
        raise
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
