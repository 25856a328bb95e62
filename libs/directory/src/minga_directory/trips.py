"""Round trips that calls of scripts share.

A round trip costs a process several times what the script costs the store, so calls that wait at the same time travel
together: a call that finds few trips on their way sets off at once, and those that come while `SWIFT_TRIPS` are on
their way are gathered, and set off together when one is back. Nobody waits for a trip that takes long: after
`PATIENCE_SECONDS` the next one sets off on another connection. Each call has its own answer, and its own error where
the store refuses it; only a lost connection, or one that is silent for too long, fails all that travelled over it.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

from redis.exceptions import ConnectionError as StoreConnectionError

from minga_directory.connection import Client
from minga_directory.scripts import Script

MAX_CALLS = 16
"""In one trip. A look-up of 20 holders costs the store about 80 µs, and all others wait for those of one trip."""
SWIFT_TRIPS = 2
"""While the store works for one, the answers of the other are made."""
MAX_TRIPS = 8
"""On their way at once: a store that is as slow as that gets no more."""
PATIENCE_SECONDS = 0.02


class _Call(NamedTuple):
    script: Script
    keys: Sequence[str]
    args: Sequence[Any]
    answer: "asyncio.Future[Any]"


class SharedTrips:
    """Of one event loop, to one server. Those who call bound how many calls wait."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._waiting: deque[_Call] = deque()
        self._trips: set[asyncio.Task[None]] = set()
        self._closed = False
        self._swift = 0
        """Trips that are worth waiting for: they have not been on their way for long."""

    async def call(self, script: Script, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """What the script answers. Raises what redis-py raises. One that is cancelled does not hinder the others."""
        if self._closed:
            raise StoreConnectionError("closed")
        answer = asyncio.get_running_loop().create_future()
        self._waiting.append(_Call(script, keys, args, answer))
        self._set_off()
        return await answer

    async def aclose(self) -> None:
        """Ends every trip; whoever waits for one gets an error, as does whoever calls later."""
        self._closed = True
        _fail(self._waiting, StoreConnectionError("closed"))
        for trip in self._trips:
            trip.cancel()
        await asyncio.gather(*self._trips, return_exceptions=True)

    def _set_off(self) -> None:
        due = self._swift < SWIFT_TRIPS or len(self._waiting) >= MAX_CALLS
        if self._waiting and due and len(self._trips) < MAX_TRIPS and not self._closed:
            trip = asyncio.create_task(self._travel(), name="store_trip")
            self._swift += 1
            self._trips.add(trip)
            trip.add_done_callback(self._trips.discard)

    async def _travel(self) -> None:
        # Taken now and not when the trip was decided on: whoever has come in this turn of the loop travels along.
        calls = [self._waiting.popleft() for _ in range(min(MAX_CALLS, len(self._waiting)))]
        swift = True

        def late() -> None:
            nonlocal swift
            swift = False
            self._swift -= 1
            self._set_off()

        patience = asyncio.get_running_loop().call_later(PATIENCE_SECONDS, late)
        try:
            await self._carry([call for call in calls if not call.answer.done()])
        except asyncio.CancelledError:
            _fail(calls, StoreConnectionError("closed"))
            raise
        except Exception as error:  # noqa: BLE001 - it is those who wait that hear of it, whatever it is
            _fail(calls, error)
        finally:
            patience.cancel()
            self._trips.discard(asyncio.current_task())
            self._swift -= swift
            self._set_off()

    async def _carry(self, calls: Sequence[_Call]) -> None:
        if not calls:
            return
        async with self._client.pipeline(transaction=False) as pipe:
            for call in calls:
                pipe.execute_command("EVALSHA", call.script.digest, len(call.keys), *call.keys, *call.args)
            answers = await pipe.execute(raise_on_error=False)
        for call, answer in zip(calls, answers, strict=True):
            if call.answer.done():
                continue
            if isinstance(answer, Exception):
                call.answer.set_exception(answer)
            else:
                call.answer.set_result(answer)


def _fail(calls: "Sequence[_Call] | deque[_Call]", error: Exception) -> None:
    for call in calls:
        if not call.answer.done():
            call.answer.set_exception(error)
