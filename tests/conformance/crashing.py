"""Stores that fail or wait at a chosen command, as a process does that dies or stands still."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError

from minga_directory.store import Command, Store


@dataclass(slots=True)
class Life:
    """Commands that may still be sent."""

    commands: int
    spent: int = 0

    def take(self, wanted: int) -> int:
        """How many of `wanted` commands are still sent."""
        granted = min(wanted, max(0, self.commands - self.spent))
        self.spent += granted
        return granted


class CrashingStore(Store):
    """Sends as many commands as its life allows, the beginning of a batch too; everything after fails."""

    def __init__(self, store: Store, life: Life) -> None:
        self._store = store
        self.spans_slots = store.spans_slots
        self.life = life

    async def answers(self, commands: Sequence[Command]) -> list[Any]:
        """See Store."""
        granted = self.life.take(len(commands))
        answers = await self._store.answers(commands[:granted])
        if granted < len(commands):
            raise RedisConnectionError("the process died")
        return answers

    async def ping(self) -> None:
        """See Store."""
        await self._store.ping()

    async def aclose(self) -> None:
        """The store belongs to the test."""


def crashing(store: Store, commands: int) -> CrashingStore:
    """A store over the same connections that dies after `commands` commands."""
    return CrashingStore(store, Life(commands))


def pause(store: Store, count: int, action: Callable[[], Awaitable[None]]) -> None:
    """Does the action once, before batch number `count` of the store."""
    send = store.answers
    calls = 0

    async def answers(commands: Sequence[Command]) -> list[Any]:
        nonlocal calls
        calls += 1
        if calls == count + 1:
            await action()
        return await send(commands)

    store.answers = answers  # type: ignore[method-assign]
