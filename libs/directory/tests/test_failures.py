"""Errors of Redis as errors of ours."""

import asyncio

import pytest
from redis import exceptions as redis

from minga_core.errors import StoreRefusedError, StoreUnavailableError
from minga_directory.failures import failure_of, store_errors

SCRIPT_62 = "Error running script (call to f_12): @user_script:6: @user_script: 6: -{} this and that"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (redis.OutOfMemoryError("command not allowed when used memory > 'maxmemory'."), "maxmemory"),
        (redis.ResponseError(SCRIPT_62.format("OOM")), "maxmemory"),
        (redis.ReadOnlyError("You can't write against a read only replica."), "is a replica there"),
        (redis.ResponseError(SCRIPT_62.format("READONLY")), "is a replica there"),
        (redis.ResponseError("MISCONF Redis is configured to save RDB snapshots"), "cannot save to its disk"),
        (redis.ResponseError("NOREPLICAS Not enough good replicas to write."), "too few replicas"),
        (redis.BusyLoadingError("Redis is loading the dataset in memory"), "is loading"),
        (redis.ClusterDownError("The cluster is down"), "Cluster is down"),
        (redis.MasterDownError("Link with MASTER is down"), "Cluster is down"),
        (redis.ConnectionError("Connection refused"), "Connection refused"),
        (TimeoutError(), "no answer in time"),
        (ConnectionResetError(104, "Connection reset by peer"), "reset by peer"),
    ],
)
def test_what_passes_by_itself(error: Exception, said: str) -> None:
    """Retryable, in one line that says what it is."""
    failure = failure_of(error)
    assert type(failure) is StoreUnavailableError
    assert failure.retryable
    assert said in str(failure)
    assert "\n" not in str(failure)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (redis.AuthenticationError("Authentication required."), "user or password"),
        (redis.AuthenticationError("invalid username-password pair or user is disabled."), "user or password"),
        (redis.NoPermissionError("User minga has no permissions to run the 'hget' command"), "'hget'"),
        (redis.ResponseError(SCRIPT_62.format("NOPERM")), "forbids"),
        (redis.ResponseError("ACL failure in script: User minga has no permissions to run the 'hget'"), "'hget'"),
        (redis.MovedError("3999 127.0.0.1:6381"), "node of a Cluster"),
        (redis.ClusterCrossSlotError("Keys in request don't hash to the same slot"), "node of a Cluster"),
        (redis.ResponseError("This instance has cluster support disabled"), "is no Cluster"),
        (redis.ResponseError("unknown command 'HRANDFIELD'"), "6.2 or newer"),
        (redis.ConnectionError("[SSL: CERTIFICATE_VERIFY_FAILED] self-signed"), "not trusted"),
    ],
)
def test_what_somebody_has_to_change(error: Exception, said: str) -> None:
    """Its own class, so that a process may refuse to start, and a hint."""
    failure = failure_of(error)
    assert isinstance(failure, StoreRefusedError)
    assert said in str(failure)
    assert failure.hint


def test_what_redis_py_wraps_is_found() -> None:
    """It makes a connection error of everything that happens while it connects."""
    wrapped = redis.ConnectionError("x")
    wrapped.__cause__ = StoreRefusedError("the sentinels refuse this user", hint="look there")
    failure = failure_of(wrapped)
    assert isinstance(failure, StoreRefusedError)
    assert failure.hint == "look there"


async def test_a_call_that_takes_too_long_is_ended() -> None:
    """Whatever it is made of."""
    with pytest.raises(StoreUnavailableError, match="no answer in time"):
        async with store_errors(0.01):
            await asyncio.Event().wait()


async def test_other_errors_pass_through() -> None:
    """A bug is a bug."""
    with pytest.raises(ZeroDivisionError):
        async with store_errors():
            raise ZeroDivisionError
