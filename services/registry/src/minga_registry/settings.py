"""The registry's settings."""

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from minga_runtime.settings import DirectoryPartSettings, ListenText, Seconds

DEFAULT_PORT = 50051


class RegistrySettings(DirectoryPartSettings):
    """What a registry process needs to know. Flags and variables: see `minga_runtime.settings.KNOWN_VARIABLES`."""

    listen: ListenText = f"0.0.0.0:{DEFAULT_PORT}"
    metrics_listen: ListenText | None = None
    port_file: Path | None = None

    lease_ttl: Seconds = timedelta(seconds=15)
    """Granted to peers that ask for nothing: how long a peer that lost its power stays in answers."""
    lease_ttl_min: Seconds = timedelta(seconds=1)
    lease_ttl_max: Seconds = timedelta(minutes=5)
    heartbeat_interval: Seconds | None = None
    """Below half of lease_ttl, so that one lost heartbeat is harmless."""

    max_table_rows: Annotated[int, Field(ge=1, le=100_000_000)] = 2_000_000
    max_pushes: Annotated[int, Field(ge=1, le=10_000)] = 64
    """Memory: a push holds one message of 4 MiB and what the directory stages. Further ones wait."""
    push_idle: Seconds = timedelta(seconds=30)
    push_limit: Seconds = timedelta(minutes=10)
    max_connection_age: Seconds = timedelta(minutes=5)
    """How soon a replica that is added has its share; each new connection is a few round trips for a peer."""
    reap_interval: Seconds = timedelta(seconds=5)
    stop_grace: Seconds = timedelta(seconds=5)

    @model_validator(mode="after")
    def _relations(self) -> Self:
        if not timedelta(0) < self.lease_ttl_min <= self.lease_ttl <= self.lease_ttl_max:
            raise ValueError(
                "MINGA_LEASE_TTL: more than 0 is wanted, and MINGA_LEASE_TTL_MIN to MINGA_LEASE_TTL_MAX "
                f"({self.lease_ttl_min.total_seconds():g} to {self.lease_ttl_max.total_seconds():g})"
            )
        interval = self.heartbeat_interval
        if interval is not None and not timedelta(0) < interval < self.lease_ttl / 2:
            raise ValueError("MINGA_HEARTBEAT_INTERVAL: more than 0 and less than half of MINGA_LEASE_TTL is wanted")
        if not min(self.push_idle, self.push_limit, self.reap_interval) > timedelta(0):
            raise ValueError("MINGA_PUSH_IDLE, MINGA_PUSH_LIMIT, MINGA_REAP_INTERVAL: more than 0 is wanted")
        if not timedelta(0) < self.max_connection_age <= timedelta(days=1):
            raise ValueError("MINGA_MAX_CONNECTION_AGE: more than 0 and at most a day is wanted")
        return self
