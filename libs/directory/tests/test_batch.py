"""Commands of one turn of the event loop share a round trip, and nothing else."""

import asyncio
from collections.abc import Sequence
from typing import Any

from redis.exceptions import ConnectionError as StoreConnectionError
from redis.exceptions import ResponseError

from minga_directory.batch import MAX_COMMANDS, Batcher
from minga_directory.store import Command, Store


class EchoStore(Store):
    """Answers with the command's word, or raises what is to be raised, once it is released."""

    def __init__(self) -> None:
        self.batches: list[Sequence[Command]] = []
        self.released = asyncio.Event()
        self.error: Exception | None = None

    async def answers(self, commands: Sequence[Command]) -> list[Any]:
        self.batches.append(commands)
        await self.released.wait()
        if self.error:
            raise self.error
        return [ResponseError("refused") if word == "bad" else word for (word,) in commands]

    async def ping(self) -> None:
        pass

    async def aclose(self) -> None:
        pass


async def test_commands_of_one_turn_travel_together_each_with_its_own_answer() -> None:
    """A refused one is its caller's error alone; a cancelled one hinders nobody."""
    store = EchoStore()
    batcher = Batcher(store)
    tasks = [asyncio.create_task(batcher.one(word)) for word in ("a", "bad", "cancelled", "b")]
    await asyncio.sleep(0.01)
    tasks[2].cancel()
    store.released.set()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert store.batches == [[("a",), ("bad",), ("cancelled",), ("b",)]]
    assert (answers[0], answers[3]) == ("a", "b")
    assert [type(answer) for answer in answers[1:3]] == [ResponseError, asyncio.CancelledError]


async def test_batches_are_bounded_and_none_waits_for_another() -> None:
    """More commands than fit into a batch travel at the same time; later ones do not wait for a slow batch."""
    store = EchoStore()
    batcher = Batcher(store)
    tasks = [asyncio.create_task(batcher.one(number)) for number in range(MAX_COMMANDS + 1)]
    await asyncio.sleep(0.01)
    tasks.append(asyncio.create_task(batcher.one("late")))
    await asyncio.sleep(0.01)
    assert [len(batch) for batch in store.batches] == [MAX_COMMANDS, 1, 1]
    store.released.set()
    assert await asyncio.gather(*tasks) == [*range(MAX_COMMANDS + 1), "late"]


async def test_a_lost_connection_fails_the_batch_and_closing_fails_what_waits() -> None:
    """With an error that means that the store is away."""
    store = EchoStore()
    batcher = Batcher(store)
    store.error = StoreConnectionError("gone")
    lost = asyncio.create_task(batcher.one("a"))
    await asyncio.sleep(0.01)
    store.released.set()
    waiting = asyncio.gather(lost, return_exceptions=True)
    assert [str(error) for error in await waiting] == ["gone"]
    store.released.clear()
    hanging = asyncio.create_task(batcher.one("b"))
    await asyncio.sleep(0.01)
    await batcher.aclose()
    assert [str(error) for error in await asyncio.gather(hanging, return_exceptions=True)] == ["closed"]
