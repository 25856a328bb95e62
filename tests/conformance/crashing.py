"""A Redis client that dies after so many commands, as a process does: the rest of a pipeline is never sent."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError

from minga_directory.client import StoreClient, StorePipeline


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


class CrashingRedis(StoreClient):
    """Sends what its life allows; everything after fails. Loading scripts is free."""

    life: Life

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """See Redis."""
        if self.life.take(1) == 0:
            raise RedisConnectionError("the process died")
        return await super().execute_command(*args, **options)

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> "CrashingPipeline":
        """See Redis."""
        made = CrashingPipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)
        made.life = self.life
        return made


class CrashingPipeline(StorePipeline):
    """Sends the beginning of itself that its life allows."""

    life: Life

    async def _execute_pipeline(self, connection: Any, commands: Sequence[Any], raise_on_error: bool = True) -> Any:
        granted = self.life.take(len(commands))
        answers = await super()._execute_pipeline(connection, commands[:granted], raise_on_error) if granted else []
        if granted < len(commands):
            raise RedisConnectionError("the process died")
        return answers


def crashing(like: StoreClient, commands: int) -> CrashingRedis:
    """A client to the same server that dies after `commands` commands."""
    made = CrashingRedis(connection_pool=like.connection_pool)
    made.life = Life(commands)
    return made
