"""Heartbeats go to the store together: whatever comes while one batch is with it, or soon after, goes in the next.

So a quiet registry renews each lease at once, and a busy one many with each round trip, which costs several times what
a renewal itself does. The limit on what waits is the number of callers: each waits for its own answer.
"""

import asyncio
from collections.abc import Sequence

from minga_core.errors import LeaseSupersededError, StoreUnavailableError
from minga_directory.directory import DirectoryWriter, HeartbeatOutcome, Renewal

MAX_BATCH = 500
"""Renewals that travel together: a few milliseconds of the store's time."""
GATHER_SECONDS = 0.005
"""Between the starts of two batches; nothing to a lease of seconds, and a batch of ten at 2,000 heartbeats a second."""

_Waiting = tuple[Renewal, "asyncio.Future[HeartbeatOutcome]"]


class Renewals:
    """Gathers renewals. `run` must run, in a task of its owner's; until then callers wait."""

    def __init__(self, directory: DirectoryWriter) -> None:
        self._directory = directory
        self._waiting: list[_Waiting] = []
        self._came = asyncio.Event()

    async def renewed(self, renewal: Renewal) -> HeartbeatOutcome:
        """What became of it. Raises LeaseSupersededError, StoreUnavailableError."""
        done: asyncio.Future[HeartbeatOutcome] = asyncio.get_running_loop().create_future()
        self._waiting.append((renewal, done))
        self._came.set()
        return await done

    async def run(self) -> None:
        """Works until cancelled."""
        loop = asyncio.get_running_loop()
        earliest = loop.time()
        while True:
            await self._came.wait()
            await asyncio.sleep(max(0.0, earliest - loop.time()))
            earliest = loop.time() + GATHER_SECONDS
            batch, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
            if not self._waiting:
                self._came.clear()
            # Whoever has gone meanwhile does not renew any more.
            await self._work_off([(renewal, done) for renewal, done in batch if not done.done()])

    async def _work_off(self, batch: Sequence[_Waiting]) -> None:
        if not batch:
            return
        outcomes: Sequence[HeartbeatOutcome | LeaseSupersededError | StoreUnavailableError]
        try:
            outcomes = await self._directory.renew([renewal for renewal, _ in batch])
        except StoreUnavailableError as error:
            # Each caller gets one of its own: a raised error carries its caller's traceback.
            outcomes = [StoreUnavailableError(str(error)) for _ in batch]
        except BaseException:
            # The end, or a bug, which the owner of the task logs: nobody may wait for ever.
            for _, done in batch:
                done.cancel()
            raise
        for (_, done), outcome in zip(batch, outcomes, strict=True):
            _tell(done, outcome)


def _tell(
    done: "asyncio.Future[HeartbeatOutcome]", outcome: HeartbeatOutcome | LeaseSupersededError | StoreUnavailableError
) -> None:
    if done.done():
        return
    if isinstance(outcome, HeartbeatOutcome):
        done.set_result(outcome)
    else:
        done.set_exception(outcome)
