"""Commands that are asked for in the same turn of the event loop share a round trip.

A round trip costs a process more than a look-up or a placement costs Redis (adr/0020 has the figures).
"""

import asyncio
from collections.abc import Sequence
from typing import Any

from redis.exceptions import ConnectionError as StoreConnectionError

from minga_directory.store import Command, Store

MAX_COMMANDS = 16
"""In one batch. A look-up of 20 holders costs Redis about 80 µs, and all others wait for those of one batch."""

_Waiting = tuple[Command, "asyncio.Future[Any]"]


class Batcher:
    """Of one event loop. Each command has its own answer or error; a lost connection fails the whole batch."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: list[_Waiting] = []
        self._in_flight: set[asyncio.Task[None]] = set()

    async def one(self, *command: Any) -> Any:
        """The answer to a command. Raises what redis-py raises. A caller that is cancelled hinders no other."""
        answer = asyncio.get_running_loop().create_future()
        if not self._waiting:
            task = asyncio.create_task(self._linger(), name="store_batch")
            self._in_flight.add(task)
            task.add_done_callback(self._in_flight.discard)
        self._waiting.append((command, answer))
        return await answer

    async def aclose(self) -> None:
        """Fails the commands that have no answer yet."""
        for task in self._in_flight:
            task.cancel()
        await asyncio.gather(*self._in_flight, return_exceptions=True)

    async def _linger(self) -> None:
        # This task starts after all callers of this turn have come.
        waiting, self._waiting = self._waiting, []
        batches = [waiting[start : start + MAX_COMMANDS] for start in range(0, len(waiting), MAX_COMMANDS)]
        await asyncio.gather(*map(self._send, batches))

    async def _send(self, batch: Sequence[_Waiting]) -> None:
        answers: Sequence[Any]
        try:
            answers = await self._store.answers([command for command, answer in batch])
        except asyncio.CancelledError:
            answers = [StoreConnectionError("closed")] * len(batch)
        except Exception as error:  # noqa: BLE001 - the callers report it
            answers = [error] * len(batch)
        for (_, future), answer in zip(batch, answers, strict=True):
            if future.done():
                continue
            if isinstance(answer, BaseException):
                future.set_exception(answer)
            else:
                future.set_result(answer)
