"""Background tasks with an owner that stops them and reports their failures."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from minga_core.errors import InternalError
from minga_runtime.backoff import backoff

log = logging.getLogger(__name__)

_FIRST_RESTART_SECONDS = 0.2
_MAX_RESTART_SECONDS = 10.0


class TaskOwner:
    """Owns named background tasks.

    on_failure: called on the event loop with the exception of a task that failed; without it the failure is logged.
    """

    def __init__(self, on_failure: Callable[[BaseException], None] | None = None) -> None:
        self._on_failure = on_failure
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def count(self) -> int:
        """Tasks running now."""
        return len(self._tasks)

    def start(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Run `work` as a task until it ends or the owner is closed."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def keep(self, make: Callable[[], Coroutine[Any, Any, None]], name: str) -> asyncio.Task[Any]:
        """Run `make()` until it returns. Each failure is logged and followed by another run, with backoff."""
        return self.start(_kept(make, name), name)

    async def aclose(self) -> None:
        """Cancel every task and wait until all have ended. Idempotent."""
        while tasks := list(self._tasks):
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._tasks.difference_update(tasks)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if (error := _failure(task)) is None:
            return
        if self._on_failure is not None:
            self._on_failure(error)
        else:
            _log_failure(error, task.get_name())


def _failure(task: asyncio.Task[Any]) -> BaseException | None:
    """What a task failed with; None when it ended, or was asked to."""
    if not task.cancelled():
        return task.exception()
    # It has awaited what others cancelled, and would be gone without a word.
    return None if task.cancelling() else InternalError(f"task {task.get_name()!r} ended although nobody cancelled it")


async def _kept(make: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
    for pause_seconds in backoff(_FIRST_RESTART_SECONDS, _MAX_RESTART_SECONDS):
        try:
            await make()
            return
        except Exception as error:  # noqa: BLE001 - logged with its traceback, and tried again as asked
            _log_failure(error, name)
        await asyncio.sleep(pause_seconds)


def _log_failure(error: BaseException, name: str) -> None:
    log.error("task_failed", exc_info=error, extra={"fields": {"task": name}})


async def all_of(works: Iterable[Coroutine[Any, Any, None]], name: str) -> None:
    """Run them at once until all have ended; the first error cancels the others and is raised as itself.

    name: of their tasks, which get a number each.
    """
    tasks = [asyncio.create_task(work, name=f"{name}-{number}") for number, work in enumerate(works)]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
