"""Heartbeats of many peers share a round trip: what arrives while one batch is under way, or soon after, goes next.

So a quiet registry renews each lease at once, and a busy one many with each round trip, which costs several times what
a renewal itself does. Waiting renewals are bounded by the number of callers: each waits for its own answer.
"""

import asyncio
from collections.abc import Sequence

from minga_core.errors import LeaseSupersededError, StoreUnavailableError
from minga_directory.directory import DirectoryWriter, HeartbeatOutcome, Renewal

MAX_BATCH = 500
"""Renewals of one batch: a few milliseconds of the store's time."""
LINGER_SECONDS = 0.005
"""Between the starts of two batches; nothing to a lease of seconds, and a batch of ten at 2,000 heartbeats a second."""

_Waiting = tuple[Renewal, "asyncio.Future[HeartbeatOutcome]"]


class HeartbeatBatcher:
    """Gathers renewals. `run` must run, in a task of its owner's; until then callers wait."""

    def __init__(self, directory: DirectoryWriter) -> None:
        self._directory = directory
        self._waiting: list[_Waiting] = []
        self._arrived = asyncio.Event()

    async def renew(self, renewal: Renewal) -> HeartbeatOutcome:
        """Renews one lease. Raises LeaseSupersededError, StoreUnavailableError. Safe to retry."""
        answer: asyncio.Future[HeartbeatOutcome] = asyncio.get_running_loop().create_future()
        self._waiting.append((renewal, answer))
        self._arrived.set()
        return await answer

    async def run(self) -> None:
        """Works until cancelled."""
        loop = asyncio.get_running_loop()
        earliest = loop.time()
        while True:
            await self._arrived.wait()
            await asyncio.sleep(max(0.0, earliest - loop.time()))
            earliest = loop.time() + LINGER_SECONDS
            batch, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
            if not self._waiting:
                self._arrived.clear()
            # Callers that have gone do not renew any more.
            await self._renew_all([(renewal, answer) for renewal, answer in batch if not answer.done()])

    async def _renew_all(self, batch: Sequence[_Waiting]) -> None:
        if not batch:
            return
        outcomes: Sequence[HeartbeatOutcome | LeaseSupersededError | StoreUnavailableError]
        try:
            outcomes = await self._directory.renew([renewal for renewal, _ in batch])
        except StoreUnavailableError as error:
            # One for each caller: a raised error carries its caller's traceback.
            outcomes = [StoreUnavailableError(str(error)) for _ in batch]
        except BaseException:
            # The end, or a bug, which the owner of the task logs: no caller may wait for ever.
            for _, answer in batch:
                answer.cancel()
            raise
        for (_, answer), outcome in zip(batch, outcomes, strict=True):
            if answer.done():
                continue
            if isinstance(outcome, HeartbeatOutcome):
                answer.set_result(outcome)
            else:
                answer.set_exception(outcome)
