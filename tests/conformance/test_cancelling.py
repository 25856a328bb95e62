"""Cancelling a call ends it, at whatever step it is, and leaves the client usable."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tests.conformance.harness import Harness, row

pytestmark = pytest.mark.redis


async def push(directory: Harness) -> None:
    """Many steps."""
    await directory.push("a", [row("x")], revision=2)


async def reap(directory: Harness) -> None:
    """What a registry does all day, until it is cancelled."""
    while True:
        await directory.writer.reap()


async def find(directory: Harness) -> None:
    """A read of several round trips."""
    await directory.reader.find(row("x").key.name)


@pytest.mark.parametrize("call", [push, reap, find])
async def test_a_cancellation_is_never_lost(on_redis: Harness, call: Callable[[Harness], Awaitable[None]]) -> None:
    """After any number of steps of the event loop; a lost one would keep a process from ending."""
    await on_redis.register("a")
    await on_redis.push("a", [row("x")])
    for steps in range(120):
        task = asyncio.ensure_future(call(on_redis))
        for _ in range(steps):
            await asyncio.sleep(0)
        if not task.cancel():
            await task
            continue
        done, _ = await asyncio.wait([task], timeout=5)
        assert done, f"cancelled after {steps} steps, and still there"
        assert task.cancelled(), f"cancelled after {steps} steps, and it went on"
    await on_redis.push("a", [row("y")], revision=3)
    await on_redis.until_names(["y"])
