"""A registry that grants absurd leases and asks for everything again and again: no crash, no busy loop, no wait for
good."""

import asyncio
import random
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.duration_pb2 import Duration

from minga_core.errors import MingaError, RegisterAgainError, RowRefusedError, TableRevisionMismatchError
from minga_protos.registry.v1 import registry_pb2 as pb

from .test_announcer import Announced, FakeRegistry, announcing, row

DAY = timedelta(days=1)


class Counted:
    """How often the registry was called."""

    def __init__(self) -> None:
        self.calls = 0


def grant(ttl: Duration, interval: Duration, limit: Duration | None = None) -> pb.RegisterResponse:
    """An answer to Register."""
    return pb.RegisterResponse(granted_ttl=ttl, heartbeat_interval=interval, push_limit=limit)


async def calls_a_second(fixture: Announced, counted: Counted, seconds: float = 1.0) -> float:
    """After the first of all, over so many seconds or what a busy machine makes of them."""
    await fixture.until(lambda: counted.calls > 0)
    before, began = counted.calls, time.monotonic()
    await asyncio.sleep(seconds)
    assert fixture.loop is not None
    assert not fixture.loop.done(), "the announcer goes on"
    return (counted.calls - before) / (time.monotonic() - began)


@pytest.mark.parametrize(
    ("ttl", "interval"),
    [
        (Duration(), Duration()),
        (Duration(seconds=-5), Duration(seconds=-1)),
        (Duration(nanos=-5), Duration(nanos=1)),
        (Duration(seconds=10**18), Duration(seconds=10**18)),
        (Duration(seconds=-(1 << 63)), Duration(seconds=(1 << 63) - 1)),
        (Duration(seconds=5), Duration(seconds=10)),
    ],
    ids=["none", "negative", "tiny", "1e18 s", "extremes", "longer than the lease"],
)
async def test_an_absurd_grant_becomes_one_that_can_be_kept(
    monkeypatch: pytest.MonkeyPatch, ttl: Duration, interval: Duration
) -> None:
    """What Duration cannot convert ended the daemon; no interval was heartbeats without a pause."""
    counted = Counted()

    async def register(self: FakeRegistry, request: pb.RegisterRequest, context: Any) -> pb.RegisterResponse:
        self.registered = True
        return grant(ttl, interval, interval)

    heartbeat = FakeRegistry._heartbeat

    def count(self: FakeRegistry, request: pb.HeartbeatRequest) -> pb.HeartbeatResponse:
        counted.calls += 1
        return heartbeat(self, request)

    monkeypatch.setattr(FakeRegistry, "Register", register)
    monkeypatch.setattr(FakeRegistry, "_heartbeat", count)
    began = time.monotonic()
    async with announcing((row("a"),)) as fixture:
        await fixture.until(lambda: fixture.registry.table == {"a"})
        assert fixture.announcer.registered
        await asyncio.sleep(0.3)
        assert counted.calls <= (time.monotonic() - began) / (0.8 * 0.05) + 2
        assert 30 <= fixture.registry.push_seconds <= 2 * DAY.total_seconds()


async def test_a_peer_asks_again_within_a_day_whatever_lease_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease of 30,000 years, and a heartbeat in 15,000: the registry that follows would not know of this peer."""

    async def register(self: FakeRegistry, request: pb.RegisterRequest, context: Any) -> pb.RegisterResponse:
        return grant(Duration(seconds=10**12), Duration(seconds=10**12))

    monkeypatch.setattr(FakeRegistry, "Register", register)
    async with announcing() as fixture:
        await fixture.until(lambda: fixture.announcer.registered)
        ttl, interval = fixture.announcer._ttl, fixture.announcer._interval
        assert ttl <= DAY
        assert interval <= ttl / 2


@pytest.mark.parametrize("error", [RegisterAgainError("again"), TableRevisionMismatchError("again")], ids=str)
async def test_a_registry_that_always_wants_everything_again_is_answered_ever_later(
    monkeypatch: pytest.MonkeyPatch, error: MingaError
) -> None:
    """It was registered at, and the whole table pushed, as fast as the network goes."""
    counted = Counted()

    async def push(
        self: FakeRegistry, requests: AsyncIterator[pb.PushTableRequest], context: Any
    ) -> pb.PushTableResponse:
        counted.calls += 1
        raise error

    monkeypatch.setattr(FakeRegistry, "PushTable", push)
    async with announcing((row("a"),)) as fixture:
        assert await calls_a_second(fixture, counted) <= 4


@pytest.mark.parametrize("revision", [-5, (1 << 63) - 1])
async def test_a_revision_that_was_not_pushed_is_not_believed(monkeypatch: pytest.MonkeyPatch, revision: int) -> None:
    """The table was pushed again at once, since it had another revision; `announced` would wait, or not, in vain."""
    counted = Counted()

    async def push(
        self: FakeRegistry, requests: AsyncIterator[pb.PushTableRequest], context: Any
    ) -> pb.PushTableResponse:
        counted.calls += 1
        async for _ in requests:
            pass
        return pb.PushTableResponse(revision=revision)

    monkeypatch.setattr(FakeRegistry, "PushTable", push)
    async with announcing((row("a"),)) as fixture:
        assert await calls_a_second(fixture, counted) <= 5
        assert fixture.announcer.announced_revision == -1
        assert "confirmed revision" in fixture.announcer.problem


async def test_a_registry_that_refuses_rows_that_nobody_has_is_asked_ever_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another name each time: leaving it out changes nothing."""
    counted = Counted()

    async def push(
        self: FakeRegistry, requests: AsyncIterator[pb.PushTableRequest], context: Any
    ) -> pb.PushTableResponse:
        counted.calls += 1
        raise RowRefusedError("no", row_name=f"../{counted.calls}")

    monkeypatch.setattr(FakeRegistry, "PushTable", push)
    async with announcing((row("a"),)) as fixture:
        assert await calls_a_second(fixture, counted) <= 5


@pytest.mark.parametrize("action", [pb.HEARTBEAT_ACTION_PUSH_TABLE, pb.HEARTBEAT_ACTION_REGISTER_AGAIN, 0, 77, -1])
async def test_whatever_a_heartbeat_is_answered_there_is_a_pause(monkeypatch: pytest.MonkeyPatch, action: Any) -> None:
    """Actions of the future are none; those that are known cost a call or two for each interval."""
    counted = Counted()

    def heartbeat(self: FakeRegistry, request: pb.HeartbeatRequest) -> pb.HeartbeatResponse:
        counted.calls += 1
        return pb.HeartbeatResponse(action=action)

    monkeypatch.setattr(FakeRegistry, "_heartbeat", heartbeat)
    async with announcing((row("a"),)) as fixture:
        assert await calls_a_second(fixture, counted, 0.5) <= 1 / (0.8 * 0.05) + 4


async def test_errors_of_any_form_are_retried_with_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Statuses, codes and attributes that no registry of ours sends."""
    counted, rng = Counted(), random.Random(1)
    codes = [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK]
    words = ["", "lease", "x" * 1000, "-1", "9" * 30, "nan", "\x7f"]

    async def register(self: FakeRegistry, request: pb.RegisterRequest, context: Any) -> pb.RegisterResponse:
        counted.calls += 1
        metadata = [(f"minga-{key}", rng.choice(words)) for key in ("code", "hint", "retry-after-ms", "owner")]
        await context.abort(rng.choice(codes), rng.choice(words), tuple(metadata))
        raise AssertionError("abort raises")

    monkeypatch.setattr(FakeRegistry, "Register", register)
    async with announcing() as fixture:
        assert await calls_a_second(fixture, counted) <= 10
        fixture.announcer.address_changed()
        await fixture.until(lambda: bool(fixture.announcer.problem))
