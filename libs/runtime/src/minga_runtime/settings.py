"""Settings: read once from flags, `MINGA_*` variables and `.env`, checked, frozen, passed down.

Flags win over the environment, which wins over `.env`, which wins over defaults. A value that is wrong, or a `MINGA_`
variable that nobody knows, stops the process with its name and the reason.
"""

import difflib
import os
import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from minga_core.errors import InvalidArgumentError, SettingsError
from minga_core.ids import parse_address, parse_peer_id, parse_zone
from minga_core.units import parse_bytes

PREFIX = "MINGA_"
_SECRET_IN_URL = re.compile(r"(://[^:/@\s]*:)[^@\s]*@")

KNOWN_VARIABLES: dict[str, str] = {
    "MINGA_REDIS_URL": "Registry and locator: the store, `redis://`, `rediss://` or `unix://`.",
    "MINGA_REGISTRY": "Peer: the registry's host:port.",
    "MINGA_LOCATOR": "Peer and command: the locator's URL.",
    "MINGA_SHARE_DIR": "Peer: the shared folder.",
    "MINGA_STATE_DIR": "Peer: where index and parts are kept; `.minga` in the shared folder unless set.",
    "MINGA_PEER_ID": "Peer: its stable name; the host's name unless set.",
    "MINGA_LISTEN": "The host:port to serve on; port 0 for any free one.",
    "MINGA_ADVERTISE": "Peer: host:port at which other peers reach this one; found out unless set.",
    "MINGA_ZONE": "Peer: its zone, for preferring near sources.",
    "MINGA_CAPACITY": "Peer: bytes it is willing to hold in all, as `500GB`; the disk's size unless set.",
    "MINGA_CONTROL": "Peer and command: path of the Unix socket between them.",
    "MINGA_LEASE_TTL": "Registry: default lease in seconds. Peer: the lease it asks for.",
    "MINGA_MAX_TABLE_ROWS": "Registry: rows of one peer's table at most.",
    "MINGA_UPLOAD_SLOTS": "Peer: chunk streams served at once.",
    "MINGA_SOURCE_WAIT": "Peer and command: seconds to wait for a source before giving up; 0 for ever.",
    "MINGA_QUIET": "Peer: seconds a file must be unchanged before it is hashed.",
    "MINGA_RESCAN": "Peer: seconds between full scans of the shared folder.",
    "MINGA_HASH_THREADS": "Peer: threads for hashing and disk work.",
    "MINGA_METRICS_LISTEN": "host:port of the metrics endpoint; off unless set.",
    "MINGA_PORT_FILE": "A file that gets the bound host:port once the process is ready.",
    "MINGA_LOG_LEVEL": "debug, info, warning or error.",
    "MINGA_LOG_FORMAT": "auto (text on a terminal, else json), text or json.",
}
"""Every variable of every part, with what it is. A part's settings class says its default."""


def _checked(parse: Any) -> Any:
    """A validator that turns our parser's error into pydantic's."""

    def validate(value: Any) -> Any:
        try:
            return parse(value)
        except InvalidArgumentError as error:
            raise ValueError(str(error)) from error

    return validate


def _seconds(value: Any) -> Any:
    if isinstance(value, timedelta):
        return value
    try:
        return timedelta(seconds=float(value))
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{value!r} is not a number of seconds") from error


def _listen(value: str) -> str:
    from minga_runtime.channels import split_listen

    split_listen(value)
    return value


ByteCount = Annotated[int, BeforeValidator(_checked(lambda value: parse_bytes(str(value))))]
"""Bytes, written as people write sizes."""
Seconds = Annotated[timedelta, BeforeValidator(_seconds)]
"""A duration, written as a number of seconds."""
AddressText = Annotated[str, AfterValidator(_checked(parse_address))]
"""host:port of somebody else."""
ListenText = Annotated[str, AfterValidator(_checked(_listen))]
"""host:port to listen on; port 0 allowed."""
PeerIdText = Annotated[str, AfterValidator(_checked(parse_peer_id))]
ZoneText = Annotated[str, AfterValidator(_checked(parse_zone))]
LogLevel = Annotated[str, Field(pattern="^(?i:debug|info|warning|error)$")]
LogFormatText = Annotated[str, Field(pattern="^(auto|text|json)$")]


class Settings(BaseSettings):
    """Base of every part's settings."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_file=".env", frozen=True, extra="ignore", env_ignore_empty=True, validate_default=True
    )

    log_level: LogLevel = "info"
    log_format: LogFormatText = "auto"


S = TypeVar("S", bound=Settings)


def load_settings(cls: type[S], **flags: Any) -> S:
    """Settings from flags (None: not given), environment, `.env` and defaults, all of them checked.

    Raises SettingsError, naming each wrong value and why it is wrong.
    """
    _refuse_unknown(os.environ)
    try:
        return cls(**{name: value for name, value in flags.items() if value is not None})
    except ValidationError as error:
        raise SettingsError("; ".join(_problem(item) for item in error.errors())) from error


def effective_settings(settings: Settings) -> dict[str, str]:
    """Every setting as text, secrets masked; for the one line at the start."""
    return {name: mask_secrets(str(value)) for name, value in settings.model_dump().items()}


def mask_secrets(text: str) -> str:
    """`text` with passwords in URLs replaced."""
    return _SECRET_IN_URL.sub(r"\1***@", text)


def _refuse_unknown(environment: Mapping[str, str]) -> None:
    for name in environment:
        if name.startswith(PREFIX) and name not in KNOWN_VARIABLES:
            near = difflib.get_close_matches(name, KNOWN_VARIABLES, n=1)
            meant = f"; did you mean {near[0]}?" if near else ""
            raise SettingsError(f"{name}: no such setting{meant}")


def _problem(item: Any) -> str:
    name = PREFIX + "_".join(str(part) for part in item["loc"]).upper()
    if item["type"] == "missing":
        return f"{name} is needed"
    reason = str(item["msg"]).removeprefix("Value error, ")
    shown = mask_secrets(repr(item.get("input")))
    return f"{name}: {reason}" if shown.strip("'") in reason else f"{name}: {reason} (got {shown[:80]})"
