"""Which primary is believed in, of what sentinels say."""

import asyncio
import time
from typing import Any

import pytest
from redis.exceptions import AuthenticationError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError

from minga_core.errors import StoreRefusedError
from minga_directory.sentinel import SENTINEL_SECONDS, NoPrimaryError, Sentinels


class Sentinel:
    """One sentinel's client that answers what it is told to."""

    def __init__(self, port: int = 1, *, epoch: int = 1, flags: str = "master", listed: int | None = None) -> None:
        self.answers: Any = [
            [b"10.0.0.1", b"%d" % port],
            [b"ip", b"10.0.0.1", b"port", b"%d" % (listed or port), b"config-epoch", b"%d" % epoch,
             b"flags", flags.encode()],
        ]  # fmt: skip
        self.error: Exception | None = None
        self.asked = 0

    def pipeline(self, *, transaction: bool) -> "Sentinel":
        return self

    async def __aenter__(self) -> "Sentinel":
        return self

    async def __aexit__(self, *exc: object) -> None:
        return None

    def execute_command(self, *words: str) -> None:
        assert words[0] == "SENTINEL"

    async def execute(self, *, raise_on_error: bool) -> Any:
        self.asked += 1
        if self.error is not None:
            raise self.error
        if self.answers is None:
            await asyncio.Event().wait()
        return self.answers


async def primary(*sentinels: Sentinel) -> int:
    """The port."""
    return (await Sentinels(list(sentinels), "directory").primary())[1]  # type: ignore[arg-type]


def away(error: Exception | None = None) -> Sentinel:
    """One that fails, or never answers."""
    made = Sentinel()
    made.error, made.answers = error, None
    return made


async def test_the_last_failover_is_right() -> None:
    """Sentinels that have not heard of it yet say otherwise."""
    assert await primary(away(RedisConnectionError("gone")), Sentinel(1, epoch=1), Sentinel(2, epoch=2)) == 2


async def test_the_end_of_a_failover_is_believed_before_it_is_over() -> None:
    """The leader names the new primary while its own record still has the old one, marked as down: redis-py looks at
    the record alone, and connects to the dead for some seconds more."""
    leader = Sentinel(2, epoch=2, flags="s_down,o_down,master,failover_in_progress", listed=1)
    assert await primary(leader, leader, Sentinel(1, epoch=1)) == 2


async def test_a_primary_that_most_cannot_reach_is_down() -> None:
    """One is no majority."""
    down = Sentinel(1, flags="s_down,master")
    assert await primary(down, Sentinel(1), Sentinel(1)) == 1
    with pytest.raises(NoPrimaryError, match="is down"):
        await primary(down, down, Sentinel(1))


async def test_a_majority_is_enough() -> None:
    """One that never answers costs no time; two cost the limit, and then the third is believed."""
    started = time.monotonic()
    assert await primary(away(), Sentinel(1), Sentinel(1)) == 1
    assert time.monotonic() - started < SENTINEL_SECONDS / 2
    assert await primary(away(), away(), Sentinel(1)) == 1


async def test_why_no_sentinel_tells() -> None:
    """Refusals before outages: they do not end by themselves."""
    gone = away(RedisConnectionError("gone"))
    with pytest.raises(NoPrimaryError, match="no sentinel answers: gone"):
        await primary(gone, gone)
    with pytest.raises(StoreRefusedError, match="refuse this user"):
        await primary(gone, away(AuthenticationError("NOAUTH")))
    with pytest.raises(StoreRefusedError, match="know nothing of 'directory'"):
        await primary(gone, away(ResponseError("No such master with that name")))


async def test_one_answer_is_shared_by_those_who_ask_at_once() -> None:
    """A bad one, too: else they would wait for the limit one after the other."""
    silent = away()
    sentinels = Sentinels([silent], "directory")  # type: ignore[list-item]
    started = time.monotonic()
    results = await asyncio.gather(*(sentinels.primary() for _ in range(50)), return_exceptions=True)
    assert {type(result) for result in results} == {NoPrimaryError}
    assert time.monotonic() - started < 2 * SENTINEL_SECONDS
    assert silent.asked == 1
