"""A Redis that is slow, silent, or loses connections: every call ends in time, in success or in a clear error."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

import pytest

from deploy.tests.redis.fleet import CALL_LIMIT_SECONDS, fleet_over
from minga_core.errors import StoreRefusedError, StoreUnavailableError
from minga_core.names import Name
from minga_directory import connect_reader, connect_writer
from minga_directory.failures import CALL_SECONDS
from minga_directory.store import ANSWER_SECONDS, CONNECT_SECONDS
from tests.conformance.harness import Harness, over, row, rows
from tests.conformance.test_recovery import calls
from tests.support.proxy import Faults, proxied
from tests.support.redis_server import RedisServer

SLACK_SECONDS = 1.5

pytestmark = pytest.mark.timeout(120)


@asynccontextmanager
async def faulty(faults: Faults, *, cluster: bool = False) -> AsyncIterator[str]:
    """The URL of a server behind a proxy."""
    server = RedisServer(tcp=True, cluster=cluster)
    server.start()
    try:
        async with proxied(server.port, faults) as port:
            yield f"redis://127.0.0.1:{port}"
    finally:
        server.close()


async def test_a_slow_redis_slows_calls_down_and_fails_none() -> None:
    """50 ms there and 50 ms back, as over a continent: calls stay within their limits, since round trips are few."""
    faults = Faults()
    async with faulty(faults) as url, over(url) as directory:
        await directory.register("a")
        await directory.push("a", rows([f"n{number}" for number in range(500)]))
        faults.delay_seconds = 0.05
        taken = {}
        for name, call in (
            ("find", directory.reader.find(Name("n7"))),
            ("find_newest of 100", directory.reader.find_newest([Name(f"n{number}") for number in range(100)])),
            ("list_names", directory.reader.list_names()),
            ("heartbeat", directory.beat("a")),
        ):
            started = time.monotonic()
            await call
            taken[name] = time.monotonic() - started
        assert max(taken.values()) < 1.0


@pytest.mark.parametrize("trickle", [False, True])
async def test_one_that_is_too_slow_is_away_within_the_limit(trickle: bool) -> None:
    """Each answer comes, but none in time; or each byte comes in time, and the answer never ends."""
    faults = Faults()
    async with faulty(faults) as url, over(url) as directory:
        await directory.register("a")
        await directory.push("a", rows([f"n{number}" for number in range(50)]))
        faults.delay_seconds, faults.trickle = (0.2, True) if trickle else (ANSWER_SECONDS * 0.7, False)
        await _all_end_in_time(directory)
        faults.delay_seconds, faults.trickle = 0.0, False
        await directory.beat("a")


async def test_one_that_accepts_and_never_answers_is_away_within_the_limit() -> None:
    """From the beginning, and in the middle; afterwards all is well over the same clients."""
    faults = Faults(silent=True)
    async with faulty(faults) as url, over(url) as directory:
        started = time.monotonic()
        with pytest.raises(StoreUnavailableError):
            await directory.reader.ping()
        assert time.monotonic() - started < CONNECT_SECONDS + ANSWER_SECONDS + SLACK_SECONDS
        await _all_end_in_time(directory)
        faults.silent = False
        await directory.register("a")
        await directory.push("a", [row("x")])
        faults.silent = True
        await _all_end_in_time(directory)
        faults.silent = False
        assert await directory.holders("x") != {}


async def _all_end_in_time(directory: Harness) -> None:
    started = time.monotonic()
    results = await asyncio.gather(*calls(directory), return_exceptions=True)
    elapsed = time.monotonic() - started
    strange = [each for each in results if isinstance(each, Exception) and type(each) is not StoreUnavailableError]
    assert not strange
    assert elapsed < CALL_SECONDS + SLACK_SECONDS, f"{elapsed:.1f} s"


async def test_more_callers_than_connections_share_the_wait() -> None:
    """A silent Redis with hundreds of callers: none waits for the others' limits one after the other."""
    faults = Faults()
    async with faulty(faults) as url, aclosing(connect_reader(f"{url}?max_connections=4")) as reader:
        await reader.ping()
        faults.silent = True
        started = time.monotonic()
        results = await asyncio.gather(*(reader.find(Name("x")) for _ in range(300)), return_exceptions=True)
        assert time.monotonic() - started < CALL_SECONDS + SLACK_SECONDS
        assert {type(each) for each in results} == {StoreUnavailableError}


@pytest.mark.parametrize("kind", ["redis", "redis+cluster"])
async def test_connections_that_are_reset_at_random_fail_calls_and_nothing_else(kind: str) -> None:
    """A fleet under resets; when they end, no call fails any more and the directory is what the peers have."""
    faults = Faults(reset_probability=0.01)
    server = RedisServer(tcp=True)
    server.start()
    node = RedisServer(cluster=True, options={"cluster-announce-port": "0"})
    try:
        if kind == "redis":
            async with proxied(server.port, faults) as port:
                await _fleet_under(f"redis://127.0.0.1:{port}", faults)
        else:
            node.start()
            async with proxied(node.port, faults) as port:
                # The node names itself by the proxy, so that every connection goes through it.
                node.command("CONFIG", "SET", "cluster-announce-port", str(port))
                await _fleet_under(f"redis+cluster://127.0.0.1:{port}", faults)
    finally:
        server.close()
        node.close()


async def _fleet_under(url: str, faults: Faults) -> None:
    async with fleet_over(url) as fleet, fleet.running():
        await asyncio.sleep(4)
        faults.reset_probability = 0.0
        calm = time.monotonic()
        await fleet.agreement()
        assert faults.resets > 10
        assert not fleet.failures(calm), fleet.summary(calm)
        slowest = max(call.seconds for call in fleet.calls)
        assert slowest < CALL_LIMIT_SECONDS


async def test_a_silent_redis_is_no_reason_not_to_start() -> None:
    """The check at start gives up in time: it will be back."""
    async with faulty(Faults(silent=True)) as url, aclosing(connect_writer(url)) as writer:
        started = time.monotonic()
        await writer.check_access()
        assert time.monotonic() - started < CONNECT_SECONDS + ANSWER_SECONDS + SLACK_SECONDS
        with pytest.raises(StoreUnavailableError) as caught:
            await writer.ping()
        assert not isinstance(caught.value, StoreRefusedError)
