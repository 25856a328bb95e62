"""Load generators as processes of their own, whose event loops go on between calls."""

import asyncio
import ctypes
import gc
import logging
import os
import signal
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from bench.netns import LabError, resolve_by
from bench.results import reason

CALL_SECONDS = 3_600.0
_PR_SET_PDEATHSIG = 1


class Worker:
    """A context manager: inside the block the process runs; its state is that of the modules whose functions it ran."""

    def __init__(self, hosts: Path | None = None) -> None:
        """hosts: a file that stands for /etc/hosts in there; needs root."""
        self._pool = ProcessPoolExecutor(1, get_context("spawn"), _prepare_process, (hosts,))
        self.pid = self._pool.submit(os.getpid).result()

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill()
        self._pool.shutdown(wait=True)

    def kill(self) -> None:
        """Ends it as a power cut would."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    async def run(self, function: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
        """What the coroutine function of a module returns there. Raises LabError when it fails, or the process ends."""
        loop = asyncio.get_running_loop()
        try:
            answer, error = await loop.run_in_executor(self._pool, _call, function, arguments)
        except BrokenProcessPool as broken:
            raise LabError(f"the process of {function.__name__} has ended") from broken
        if error:
            raise LabError(f"{function.__module__}.{function.__name__}: {error}")
        return answer


_LOOPS: list[asyncio.AbstractEventLoop] = []


def _prepare_process(hosts: Path | None) -> None:
    import uvloop

    if hosts is not None:
        resolve_by(hosts)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Thousands of peers that log to one terminal would be part of what is measured.
    logging.disable()
    # A full collection looks at all that thousands of simulated peers have, and stops them for a second.
    gc.disable()
    _LOOPS.append(uvloop.new_event_loop())
    threading.Thread(target=_LOOPS[0].run_forever, daemon=True).start()


def _call(function: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[Any, str]:
    """The result and no error, or the error as text: not every exception can be sent to another process."""
    try:
        return asyncio.run_coroutine_threadsafe(function(*arguments), _LOOPS[0]).result(CALL_SECONDS), ""
    except Exception as error:  # noqa: BLE001 - the caller raises it
        return None, reason(error)
