"""Settings: read once from flags and `MINGA_*` variables, checked, frozen, passed down.

Flags win over the environment, which wins over defaults. No file is read (adr/0026). A wrong value or an unknown
`MINGA_` variable stops the process with its name and the reason. An empty variable counts as not set.
"""

import difflib
import os
import re
from collections.abc import Iterable, Mapping
from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    ValidationError,
    field_validator,
    model_validator,
)

from minga_core.errors import InvalidArgumentError, SettingsError
from minga_core.ids import parse_address, parse_peer_id, parse_zone
from minga_core.units import format_seconds, parse_bytes, parse_rate
from minga_runtime.listening import is_loopback, split_listen
from minga_runtime.logs import LogFormat
from minga_runtime.trust.key_sources import KeySource, parse_sources
from minga_runtime.trust.rights import Rights, parse_rights
from minga_runtime.trust.tls_files import TlsFiles

PREFIX = "MINGA_"
DEFAULT_OTLP_PORT = 4317
REDIS_SCHEMES = (
    *("redis", "rediss", "unix"),
    *("redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster"),
)
MAX_SECONDS = 1e9
"""Some 31 years: far above any use, and below what timers and dates can have."""
# A password may have any character but white space; the last @ ends it.
_SECRET_IN_URL = re.compile(r"(://[^:/@\s]*:)\S*@")
_SECRET_IN_QUERY = re.compile(r"([?&][a-z_]*password=)[^&\s'\"]*", re.IGNORECASE)
# Variables that Kubernetes puts into every pod for a Service called `minga-…`
# (https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables): not settings.
_SERVICE_LINK = re.compile(r"_SERVICE_(HOST|PORT(_[A-Z0-9_]+)?)$|_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?$")

KNOWN_VARIABLES: dict[str, str] = {
    "MINGA_REDIS_URL": "Registry and locator: the store, `redis://`, `rediss://`, `unix://`, `redis+sentinel://` or "
    "`redis+cluster://` (docs/running-redis.md).",
    "MINGA_REGISTRY": "Peer: the registry's host:port.",
    "MINGA_LOCATOR": "Peer and command: the locator's URL.",
    "MINGA_SHARE_DIR": "Peer: the shared folder.",
    "MINGA_STATE_DIR": "Peer: folder of its index and of part files; `.minga` in the shared folder unless set. "
    "Authority: folder of its database; MINGA_AUTHORITY_DIR unless set.",
    "MINGA_PEER_ID": "Peer: its stable name; the host's name unless set.",
    "MINGA_LISTEN": "The host:port to serve on; port 0 for any free one.",
    "MINGA_ADVERTISE": "Peer: host:port at which other peers reach this one; detected unless set.",
    "MINGA_ZONE": "Peer: its zone; sources of the same zone are preferred.",
    "MINGA_CAPACITY": "Peer: bytes that it may hold in all, as `500GB`; the disk's size unless set.",
    "MINGA_CONTROL": "Peer and command: path of the Unix socket between them.",
    "MINGA_LEASE_TTL": "Registry: default lease in seconds. Peer: the lease it asks for.",
    "MINGA_LEASE_TTL_MIN": "Registry: shortest lease granted, in seconds.",
    "MINGA_LEASE_TTL_MAX": "Registry: longest lease granted, in seconds.",
    "MINGA_HEARTBEAT_INTERVAL": "Registry: seconds between heartbeats at most; a third of the lease unless set.",
    "MINGA_MAX_TABLE_ROWS": "Registry: rows of one peer's table at most.",
    "MINGA_MAX_PUSHES": "Registry: concurrent table pushes, at most half of them from one host; others wait.",
    "MINGA_PUSH_IDLE": "Registry: seconds without a message after which a table push is aborted.",
    "MINGA_PUSH_LIMIT": "Registry: seconds that one table push may take in all.",
    "MINGA_MAX_CONNECTION_AGE": "Registry: seconds after which a peer is asked to reconnect, so that replicas "
    "that start later get their share of the peers.",
    "MINGA_MAX_REQUESTS": "Locator: concurrent requests, at most half of them from one host; further ones get 429 with "
    "`Retry-After: 1`.",
    "MINGA_TRUSTED_PROXIES": "Locator: addresses and networks (`10.0.0.0/8,fd00::1`) of proxies whose "
    "`X-Forwarded-For` names the client. Limits are for each host: without this, all clients behind an ingress are "
    "one host.",
    "MINGA_REAP_INTERVAL": "Registry: seconds between removals of what dead peers left.",
    "MINGA_STOP_GRACE": "Seconds that calls, and a peer's transfers, have to end once the process is stopping.",
    "MINGA_SERVING_SLOTS": "Peer: chunk requests served or queued at once, at most half of them for one member "
    "(one host in an open network); "
    "further ones are refused as busy, and their downloaders ask other sources.",
    "MINGA_MAX_UPLOADS": "Peer: uploads at once, and replicas fetched for uploaders at once, at most half of them for "
    "one member (one host in an open network).",
    "MINGA_KEEP_READ": "Peer: 1: what was only read through it stays as well, so that others can get it "
    "from here; 0: it is deleted soon after the last reader has left.",
    "MINGA_UPLOAD_QUOTA": "Peer: bytes, as `100GB`, that it takes in a day (UTC) for one member (one host in an open "
    "network), uploaded, replicated or preheated, or for the bearer of one grant at its gateway; 0: unlimited.",
    "MINGA_HTTP_LISTEN": "Peer: where chunks are served over HTTP (docs/http.md): `auto` (the next port above "
    "MINGA_LISTEN, or any free one when that is taken) or `host:port`.",
    "MINGA_GATEWAY": "Peer: where its HTTP gateway listens (docs/gateway.md): `host:port`, `auto` (127.0.0.1:50080, or "
    "any free port of the loopback when that is taken) or `off`. Its Unix socket beside MINGA_CONTROL is always there.",
    "MINGA_IMAGES": "Peer: registries whose public images its gateway mirrors (docs/images.md), with commas between: "
    "`docker.io,ghcr.io,http://10.0.0.5:5000`; empty for none.",
    "MINGA_HUB": "Peer: the hub whose models its gateway mirrors at `/hf` (docs/models.md), for programs of this "
    "machine: a URL; empty for none.",
    "MINGA_FETCH_ALLOW": "Peer: prefixes of URLs and names that it fetches for others (docs/origins.md): "
    "`https://files.example/data/,http://10.0.0.5:9000/,s3://bucket/`. Without it it fetches for its owner alone, "
    "and never from addresses that are not on the public network.",
    "MINGA_CACHE": "Peer: how much of what it fetched from origins it keeps (docs/origins.md): a share of its capacity "
    "as `20%`, or bytes as `500GB`. What was not used for longest goes first; what was published never.",
    "MINGA_LIMIT_UP": "Peer and command: payload sent per second at most, as `50MB/s` or `400Mbit/s`; 0: unlimited.",
    "MINGA_LIMIT_DOWN": "Peer and command: payload received per second at most, written the same; 0: unlimited.",
    "MINGA_SOURCE_WAIT": "Peer and command: seconds to wait for a source before giving up; 0 for ever.",
    "MINGA_SETTLE": "Peer: seconds a file must be unchanged before it is hashed.",
    "MINGA_SCRUB": "Peer: seconds in which all that is shared is read once and compared, at quiet times; 0 for never.",
    "MINGA_RESCAN": "Peer: seconds between full scans of the shared folder.",
    "MINGA_HASH_THREADS": "Peer: threads for hashing and disk work.",
    "MINGA_METRICS_LISTEN": "host:port of the metrics endpoint; off unless set.",
    "MINGA_PORT_FILE": "A file to which the bound host:port is written once the process is ready.",
    "MINGA_TRACES": "OpenTelemetry collector for traces (docs/tracing.md): host:port or `https://…`; off unless set.",
    "MINGA_OPEN": "1: registry, locator and peer may listen on other addresses than loopback without certificates, so "
    "that every host that reaches them is trusted. Without it they do not start there. With certificates, in these and "
    "in the command: connections without TLS are taken and made as well (docs/security.md, From open to secure).",
    "MINGA_AUDIT": "Authority, registry, locator, peer: a file to which the audit log is appended, one line of JSON an "
    "event (docs/operations.md); `-` for standard error; off unless set.",
    "MINGA_TLS_CERT": "This process's certificate, a PEM file; with it all connections are mutual TLS (docs/adr/0033), "
    "and MINGA_TLS_KEY and MINGA_TLS_CA are needed too.",
    "MINGA_TLS_KEY": "The private key of MINGA_TLS_CERT, a PEM file.",
    "MINGA_TLS_CA": "The certificates of the network's CA, a PEM file; two while one follows the other.",
    "MINGA_GRANT": "Peer and command: the file with this process's grant, a JWT that says what it may do "
    "(docs/adr/0034).",
    "MINGA_GRANT_KEYS": "Registry, locator and peer: the public keys by which grants are verified, with commas "
    "between: files with a JWK set, or https URLs of one, each with `issuer=` before it where that is not the "
    "network's own authority.",
    "MINGA_DEFAULT_RIGHTS": "Registry, locator and peer: what members without a grant may do, as "
    "`read=*;publish=data,ci`; everything unless set where MINGA_GRANT_KEYS is not set either, else nothing.",
    "MINGA_PUBLICATION_KEY": "Registry and locator: a file of secret keys that all of them share, a line of 64 hex "
    "digits for each; the first signs publications, all verify them (docs/adr/0035). Without it times of publication "
    "are believed.",
    "MINGA_CREDENTIALS": "The folder that `minga join` has written: it stands for MINGA_TLS_CERT, MINGA_TLS_KEY, "
    "MINGA_TLS_CA, MINGA_REVOKED and all else that is in it (docs/adr/0036). What is set beside it wins.",
    "MINGA_REVOKED": "Who is no member any more: a file of URIs of members, one a line; read again when it changes.",
    "MINGA_AUTHORITY_DIR": "Authority: the folder of its keys.",
    "MINGA_CERTIFICATE_LIFE": "Authority: seconds that certificates and grants of members are good.",
    "MINGA_LOG_LEVEL": "debug, info, warning or error.",
    "MINGA_LOG_FORMAT": "auto (text on a terminal, else json), text or json.",
}
"""Every variable of every part and its description. The default is in the settings class of the part."""


def checked(parse: Any) -> Any:
    """A validator that turns the error of one of our parsers into pydantic's."""

    def validate(value: Any) -> Any:
        try:
            return parse(value)
        except InvalidArgumentError as error:
            raise ValueError(str(error)) from error

    return validate


def _seconds(value: Any) -> timedelta:
    try:
        duration = value if isinstance(value, timedelta) else timedelta(seconds=float(value))
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{value!r} is not a number of seconds") from error
    if not timedelta(0) <= duration <= timedelta(seconds=MAX_SECONDS):
        raise ValueError(f"a number of seconds is 0 or more, and {MAX_SECONDS:,.0f} at most")
    return duration


def _listen(value: str) -> str:
    split_listen(value)
    return value


def _http_listen(value: str) -> str:
    return "auto" if value.lower() == "auto" else _listen(value)


def _gateway(value: str) -> str:
    return value.lower() if value.lower() in ("auto", "off") else _listen(value)


def _networks(value: str) -> str:
    parts = [part.strip() for part in value.split(",") if part.strip()]
    try:
        return ",".join(str(ip_network(part)) for part in parts)
    except ValueError as error:
        raise ValueError(f"addresses or networks are needed, with commas between: {error}") from error


def parsed_by(parse: Any) -> Any:
    """A validator that checks a text with a parser of ours and keeps the text."""

    def validate(value: str) -> str:
        parse(value)
        return value

    return checked(validate)


def _collector(value: str) -> str:
    """`http://host:port` or `https://host:port` for a URL or host:port; the default port is that of OTLP."""
    try:
        url = urlsplit(value if "://" in value else f"http://{value}")
        port = url.port or DEFAULT_OTLP_PORT
        extra = url.path.strip("/") or url.query or url.fragment or url.username
        if url.scheme in ("http", "https") and url.hostname and not extra:
            host = f"[{url.hostname}]" if ":" in url.hostname else url.hostname
            return f"{url.scheme}://{parse_address(f'{host}:{port}')}"
    except (ValueError, InvalidArgumentError):
        pass
    raise InvalidArgumentError("host:port of a collector is needed, or http://host:port, or https://host:port")


def _url_of(*schemes: str) -> Any:
    """A validator of URLs with one of those schemes."""

    def validate(value: str) -> str:
        if value.partition("://")[0] not in schemes or "://" not in value:
            raise ValueError(f"a URL is needed that begins with {_one_of(f'{scheme}://' for scheme in schemes)}")
        return value

    return validate


def _one_of(items: Iterable[object]) -> str:
    *others, last = map(str, items)
    return f"{', '.join(others)} or {last}" if others else last


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


ByteCount = Annotated[int, BeforeValidator(checked(lambda value: parse_bytes(str(value))))]
"""Bytes, written as `500GB` or `1.5 GiB`."""
ByteRate = Annotated[int, BeforeValidator(checked(lambda value: parse_rate(str(value))))]
"""Bytes per second, written as `50MB/s` or `400Mbit/s`; 0 for no limit."""
Seconds = Annotated[timedelta, BeforeValidator(_seconds)]
"""A duration, written as a number of seconds; 0 or more."""
AddressText = Annotated[str, AfterValidator(checked(parse_address))]
"""host:port of another process."""
ListenText = Annotated[str, AfterValidator(checked(_listen))]
"""host:port to listen on; port 0 allowed."""
HttpListenText = Annotated[str, AfterValidator(checked(_http_listen))]
"""`auto`, or host:port to listen on."""
GatewayText = Annotated[str, AfterValidator(checked(_gateway))]
"""`auto`, `off`, or host:port to listen on."""
NetworksText = Annotated[str, AfterValidator(_networks)]
"""IP addresses and networks, with commas between; may be empty."""
HttpUrlText = Annotated[str, AfterValidator(_url_of("http", "https"))]
RedisUrlText = Annotated[str, AfterValidator(_url_of(*REDIS_SCHEMES))]
"""A store's URL, as `minga_directory.connect_reader` takes it."""
CollectorText = Annotated[str, AfterValidator(checked(_collector))]
"""The collector of traces: host:port or URL, becomes a URL."""
GrantKeysText = Annotated[str, AfterValidator(parsed_by(parse_sources))]
"""Sources of keys, as `minga_runtime.trust.key_sources.parse_sources` takes them; may be empty."""
RightsText = Annotated[str, AfterValidator(parsed_by(parse_rights))]
"""Rights, as `minga_runtime.trust.rights.parse_rights` takes them."""
PeerIdText = Annotated[str, AfterValidator(checked(parse_peer_id))]
ZoneText = Annotated[str, AfterValidator(checked(parse_zone))]
LogLevel = Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_lower)]
LogFormatText = Annotated[LogFormat, BeforeValidator(_lower)]


class Settings(BaseModel):
    """Base of every part's settings. What is not given comes from the environment."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, hide_input_in_errors=True)

    credentials: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_ca: Path | None = None
    grant_keys: GrantKeysText = ""
    default_rights: RightsText | None = None
    revoked: Path | None = None
    open: bool = False
    audit: Path | None = None
    traces: CollectorText | None = None
    log_level: LogLevel = "info"
    log_format: LogFormatText = "auto"

    @model_validator(mode="before")
    @classmethod
    def _of_environment(cls, given: dict[str, Any]) -> dict[str, Any]:
        """What the environment and the folder of credentials stand for, below what is given itself."""
        variables = ((name, os.environ.get(PREFIX + name.upper())) for name in cls.model_fields)
        given = {name: text for name, text in variables if text} | given
        if not given.get("credentials"):
            return given
        from minga_runtime.trust.credentials_folder import settings_of

        try:
            found = settings_of(Path(given["credentials"]).expanduser())
        except (SettingsError, RuntimeError) as error:
            raise ValueError(str(error)) from error
        return {name: text for name, text in found.items() if name in cls.model_fields} | given

    @field_validator("*", mode="after")
    @classmethod
    def _in_home(cls, value: Any) -> Any:
        """`~` at the beginning of a path is the home folder: no shell has expanded `MINGA_SHARE_DIR=~/x` in a unit file
        or `--share-dir=~/x`."""
        if not isinstance(value, Path):
            return value
        try:
            return value.expanduser()
        except RuntimeError as error:
            raise ValueError(f"{value}: {error}") from error

    @model_validator(mode="after")
    def _all_of_tls(self) -> Self:
        if self.tls is None and (self.tls_cert or self.tls_key or self.tls_ca):
            raise ValueError("MINGA_TLS_CERT, MINGA_TLS_KEY and MINGA_TLS_CA: all of them are needed, or none")
        return self

    @model_validator(mode="after")
    def _grants_by_tls(self) -> Self:
        if self.tls is None and (self.grant_keys or self.default_rights is not None):
            raise ValueError("MINGA_GRANT_KEYS and MINGA_DEFAULT_RIGHTS need MINGA_TLS_CERT: rights are of members")
        return self

    @property
    def both(self) -> bool:
        """Whether this process takes and makes connections with TLS and without."""
        return self.open and self.tls is not None

    @property
    def key_sources(self) -> tuple[KeySource, ...]:
        """Where the keys are by which grants are verified; none in a network without grants."""
        return parse_sources(self.grant_keys)

    @property
    def rights_of_members(self) -> Rights | None:
        """Rights of members without a grant; None unless set."""
        return None if self.default_rights is None else parse_rights(self.default_rights)

    @property
    def tls(self) -> TlsFiles | None:
        """The files of this process's credentials; None in an open network."""
        if self.tls_cert is None or self.tls_key is None or self.tls_ca is None:
            return None
        return TlsFiles(self.tls_cert, self.tls_key, self.tls_ca, self.revoked)

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        """Passwords never show in a repr."""
        return effective_settings(self).items()


class PartSettings(Settings):
    """Base of the settings of what listens: registry, locator and peer. Secure unless said otherwise."""

    listen_settings: ClassVar[tuple[str, ...]] = ("listen",)
    """Fields with the addresses that other hosts are served on; `auto` is where `listen` is, or the loopback."""

    listen: ListenText

    @model_validator(mode="after")
    def _secure_or_open(self) -> Self:
        for field in self.listen_settings:
            address = getattr(self, field)
            if not (self.tls or self.open or address in ("auto", "off") or is_loopback(address)):
                raise ValueError(
                    f"{PREFIX}{field.upper()}: other hosts could reach {address}, and there are no certificates: set "
                    "MINGA_TLS_CERT, MINGA_TLS_KEY and MINGA_TLS_CA for a secure network, or MINGA_OPEN=1 for an open "
                    "one, where every host that reaches it is trusted (docs/operations.md)"
                )
        return self


class DirectoryPartSettings(PartSettings):
    """Base of the settings of the parts at the directory: registry and locator."""

    redis_url: RedisUrlText = "redis://127.0.0.1:6379/0"
    publication_key: Path | None = None

    @model_validator(mode="after")
    def _rights_by_key(self) -> Self:
        if self.publication_key is None and (self.grant_keys or self.default_rights is not None):
            raise ValueError(
                "MINGA_GRANT_KEYS and MINGA_DEFAULT_RIGHTS need MINGA_PUBLICATION_KEY: without it any member can "
                "announce what it has no right to publish (docs/adr/0035)"
            )
        return self


S = TypeVar("S", bound=Settings)


def load_settings(cls: type[S], **flags: Any) -> S:
    """Read and check the settings from flags (None: not given), environment and defaults.

    Raises SettingsError with one line for each wrong value and unknown variable: its name and the reason.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    if unknown := given.keys() - cls.model_fields.keys():
        raise TypeError(f"{cls.__name__} has no {', '.join(sorted(unknown))}")
    problems = _unknown(_variables(), KNOWN_VARIABLES.keys() | _variables_of(cls))
    try:
        settings = cls(**given)
    except ValidationError as error:
        problems += [_problem(item, given) for item in error.errors()]
    if problems:
        raise SettingsError("\n".join(problems)) from None
    return settings


def undocumented(cls: type[Settings]) -> set[str]:
    """The variables of a settings class that KNOWN_VARIABLES lacks; for that class's test."""
    return _variables_of(cls) - KNOWN_VARIABLES.keys()


def effective_settings(settings: Settings) -> dict[str, str]:
    """Every setting as text, secrets masked; for the log line at the start."""
    return {name: _text(getattr(settings, name)) for name in type(settings).model_fields}


def mask_secrets(text: str) -> str:
    """`text` with passwords in URLs replaced."""
    return _SECRET_IN_QUERY.sub(r"\1***", _SECRET_IN_URL.sub(r"\1***@", text))


def _text(value: Any) -> str:
    return format_seconds(value.total_seconds()) if isinstance(value, timedelta) else mask_secrets(str(value))


def _variables_of(cls: type[Settings]) -> set[str]:
    return {PREFIX + name.upper() for name in cls.model_fields}


def _variables() -> Mapping[str, str]:
    """The `MINGA_*` variables of the environment."""
    return {name: value for name, value in os.environ.items() if name.startswith(PREFIX)}


def _unknown(variables: Mapping[str, str], known: set[str]) -> list[str]:
    """A line for each variable of no part of Minga."""
    lines = []
    for name in sorted(variables.keys() - known):
        if not _is_service_link(name, variables[name]):
            near = difflib.get_close_matches(name, known, n=1)
            lines.append(f"{name}: no such setting" + (f"; did you mean {near[0]}?" if near else ""))
    return lines


def _is_service_link(name: str, value: str) -> bool:
    return bool(_SERVICE_LINK.search(name)) or (name.endswith("_PORT") and "://" in value)


def _problem(item: Any, flags: Mapping[str, Any]) -> str:
    """One line: the flag or variable, and what is wrong with its value. Never shows a secret."""
    field = str(item["loc"][0]) if item["loc"] else ""
    flag, variable = f"--{field.replace('_', '-')}", PREFIX + field.upper()
    if not field:
        return mask_secrets(str(item["msg"]).removeprefix("Value error, "))
    if item["type"] == "missing":
        return f"{variable} (or {flag}) is needed"
    reason = mask_secrets(_reason(item))
    shown = mask_secrets(repr(item.get("input")))[:80]
    got = "" if shown.strip("'") in reason else f" (got {shown})"
    return f"{flag if field in flags else variable}: {reason}{got}"


def _reason(item: Any) -> str:
    """What is wrong with a value, in our words where pydantic's are those of its own types."""
    limits = item.get("ctx", {})
    match item["type"]:
        case "int_parsing" | "int_type" | "int_from_float" | "int_parsing_size":
            return "a whole number is needed"
        case "bool_parsing" | "bool_type":
            return "1 or 0 is needed"
        case "greater_than_equal":
            return f"{limits['ge']:,} or more is needed"
        case "less_than_equal":
            return f"{limits['le']:,} at most is allowed"
        case "literal_error":
            return f"it must be {limits['expected']}"
        case _:
            return str(item["msg"]).removeprefix("Value error, ")
