"""Whatever goes wrong with Redis, as errors of ours: what it is, in one line, and whether waiting helps."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

from redis.exceptions import (
    AskError,
    AuthenticationError,
    BusyLoadingError,
    ClusterCrossSlotError,
    ClusterDownError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

from minga_core.errors import StoreRefusedError, StoreUnavailableError

CALL_SECONDS = 5.0
"""For one call of a port, however many commands it takes: beyond that its caller has gone, or tries again."""

_IN_SCRIPT = re.compile(r"(?:^|-)(OOM|READONLY|NOPERM|MISCONF|NOREPLICAS|LOADING|CLUSTERDOWN)\b")
"""Redis 6.2 wraps the error of a command in a script into another one, behind a dash."""
_FORBIDDEN_IN_SCRIPT = re.compile(r"ACL failure in script|has no permissions to|can't run this command")

_AWAY = {
    "OOM": ("Redis has reached its maxmemory and takes no more rows", "leases live on meanwhile; raise maxmemory"),
    "READONLY": (
        "Redis is a replica there",
        "it ends by itself after a failover, else name the primary in MINGA_REDIS_URL",
    ),
    "MISCONF": ("Redis refuses writes as it cannot save to its disk", "its log says why"),
    "NOREPLICAS": ("Redis refuses writes as too few replicas follow it", "see min-replicas-to-write"),
    "LOADING": ("Redis is loading its data", ""),
    "CLUSTERDOWN": ("the Redis Cluster is down, or the part of it that is asked", ""),
}

_CODES: dict[type[Exception], str] = {
    OutOfMemoryError: "OOM",
    ReadOnlyError: "READONLY",
    NoPermissionError: "NOPERM",
    BusyLoadingError: "LOADING",
    ClusterDownError: "CLUSTERDOWN",
}

_FAILURES = (RedisError, TimeoutError, OSError, asyncio.IncompleteReadError)


@asynccontextmanager
async def store_errors(limit: float | None = CALL_SECONDS) -> AsyncIterator[None]:
    """Turns whatever goes wrong with Redis inside the block into StoreUnavailableError; taking too long, too."""
    try:
        async with asyncio.timeout(limit):
            yield
    except _FAILURES as error:
        raise failure_of(error) from error


def failure_of(error: BaseException) -> StoreUnavailableError:
    """The error of ours; StoreRefusedError where no waiting helps."""
    for cause in _causes(error):
        if isinstance(cause, StoreUnavailableError):
            return type(cause)(str(cause), hint=cause.hint)
        if refusal := _refusal(cause):
            message, hint = refusal
            return StoreRefusedError(message, hint=hint)
        if (code := code_of(cause)) in _AWAY:
            message, hint = _AWAY[code]
            return StoreUnavailableError(message, hint=hint)
    return StoreUnavailableError(f"Redis does not answer as it should: {_line(error)}")


def code_of(error: BaseException) -> str:
    """The word that Redis begins such an error with, also when it came out of a script; else empty."""
    for kind, code in _CODES.items():
        if isinstance(error, kind):
            return code
    if not isinstance(error, ResponseError):
        return ""
    found = _IN_SCRIPT.search(str(error))
    return found[1] if found else "NOPERM" if _FORBIDDEN_IN_SCRIPT.search(str(error)) else ""


def _refusal(error: BaseException) -> tuple[str, str] | None:
    """What is wrong and what to do, when nothing changes before somebody changes it."""
    text = _line(error)
    if isinstance(error, AuthenticationError):
        return f"Redis refuses user or password: {text}", "see MINGA_REDIS_URL"
    if code_of(error) == "NOPERM":
        return f"Redis forbids this user something: {text}", "docs/running-redis.md has the ACL rules that are needed"
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return f"Redis has a certificate that is not trusted: {text}", "see ssl_ca_certs in docs/running-redis.md"
    if isinstance(error, AskError | ClusterCrossSlotError) or "in a cluster node" in text:
        return "Redis is a node of a Cluster there", "write redis+cluster:// in MINGA_REDIS_URL"
    if isinstance(error, ResponseError) and "cluster support disabled" in text:
        return "Redis is no Cluster there", "write redis:// in MINGA_REDIS_URL"
    if isinstance(error, ResponseError) and "unknown command" in text.lower():
        return f"this is no Redis 6.2 or newer: {text}", "a Sentinel is named by redis+sentinel://"
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what it was raised from; redis-py wraps what happens while it connects."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__


def _line(error: BaseException) -> str:
    return (" ".join(str(error).split()) or "no answer in time")[:200]
