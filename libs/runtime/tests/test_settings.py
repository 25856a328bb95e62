"""Settings: precedence, and an error with name and reason for every wrong value."""

import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import pytest
from pydantic import Field

from minga_core.errors import SettingsError
from minga_runtime.flags import parse_flags
from minga_runtime.settings import (
    AddressText,
    ByteCount,
    DirectoryPartSettings,
    HttpListenText,
    ListenText,
    PartSettings,
    RedisUrlText,
    Seconds,
    Settings,
    effective_settings,
    load_settings,
    mask_secrets,
)


class Example(Settings):
    """One field of each type."""

    redis_url: RedisUrlText = "redis://127.0.0.1:6379/0"
    listen: ListenText = "0.0.0.0:50051"
    registry: AddressText = "127.0.0.1:50051"
    capacity: ByteCount | None = None
    lease_ttl: Seconds = timedelta(seconds=15)
    serving_slots: Annotated[int, Field(ge=1, le=1000)] = 4


class ExamplePart(PartSettings):
    """A part with two addresses."""

    listen_settings = ("listen", "http_listen")
    listen: ListenText = "0.0.0.0:50051"
    http_listen: HttpListenText = "auto"


class NeedsFolder(Settings):
    """One field without a default."""

    share_dir: Path


def test_flags_win_over_environment_over_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each source hides the ones below it; a flag that is None was not given, nor was an empty variable."""
    assert load_settings(Example).listen == "0.0.0.0:50051"
    monkeypatch.setenv("MINGA_LISTEN", "h:2")
    assert load_settings(Example, listen=None).listen == "h:2"
    assert load_settings(Example, listen="h:3").listen == "h:3"
    monkeypatch.setenv("MINGA_LISTEN", "")
    monkeypatch.setenv("MINGA_LOG_LEVEL", "DEBUG")
    monkeypatch.setenv("MINGA_CAPACITY", "1.5 GiB")
    settings = load_settings(Example)
    assert (settings.listen, settings.log_level, settings.capacity) == ("0.0.0.0:50051", "debug", 3 * 2**29)


def test_the_files_of_tls_go_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of them alone is a mistake that must not lead to an open network."""
    assert load_settings(Example).tls is None
    for name in ("CERT", "KEY"):
        monkeypatch.setenv(f"MINGA_TLS_{name}", "/etc/minga/file")
        with pytest.raises(SettingsError, match="all of them are needed, or none"):
            load_settings(Example)
    monkeypatch.setenv("MINGA_TLS_CA", "/etc/minga/ca.crt")
    tls = load_settings(Example).tls
    assert tls is not None
    assert tls.ca == Path("/etc/minga/ca.crt")


REACHABLE = [
    {},
    {"listen": "[::]:0"},
    {"listen": "192.0.2.1:1"},
    {"listen": "minga.lab:1"},
    {"listen": "[::ffff:192.0.2.1]:1"},
    {"listen": "localhost.lab:1"},
    {"listen": "127.0.0.1:1", "http_listen": "0.0.0.0:1"},
]


@pytest.mark.parametrize("flags", REACHABLE)
def test_a_part_that_others_reach_is_secure_unless_said_otherwise(
    monkeypatch: pytest.MonkeyPatch, flags: dict[str, str]
) -> None:
    """One line names the address and both ways out, and each of them is one."""
    with pytest.raises(SettingsError, match=r"^MINGA_(HTTP_)?LISTEN: .*MINGA_TLS_CERT.*MINGA_OPEN=1[^\n]*$"):
        load_settings(ExamplePart, **flags)
    with pytest.raises(SettingsError):
        load_settings(ExamplePart, open="0", **flags)
    assert load_settings(ExamplePart, open="1", **flags).tls is None
    for name in ("CERT", "KEY", "CA"):
        monkeypatch.setenv(f"MINGA_TLS_{name}", "/etc/minga/file")
    assert load_settings(ExamplePart, **flags).tls is not None


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "127.9.9.9:1", "[::1]:0", "localhost:1"])
def test_a_part_on_the_loopback_needs_no_certificates(listen: str) -> None:
    """Only this host's users reach it."""
    assert load_settings(ExamplePart, listen=listen, http_listen=listen).listen == listen
    with pytest.raises(SettingsError, match=r"^--open: 1 or 0 is needed"):
        load_settings(ExamplePart, listen=listen, open="yes please")


def test_a_file_env_in_the_working_folder_is_not_read(monkeypatch: pytest.MonkeyPatch, clean_environment: Path) -> None:
    """Anybody may upload one into a shared folder; nor does a folder that is unreadable or gone stop a command."""
    (clean_environment / ".env").write_text("MINGA_LISTEN=stranger:1\nMINGA_LISTN=x\n")
    assert load_settings(Example).listen == "0.0.0.0:50051"
    gone = clean_environment / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert load_settings(Example).listen == "0.0.0.0:50051"


def test_a_tilde_at_the_beginning_of_a_path_is_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a variable, in a flag, and in the path of a file; a user that does not exist is reported."""
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("MINGA_SHARE_DIR", "~/x")
    assert load_settings(NeedsFolder).share_dir == Path("/home/me/x")
    assert load_settings(NeedsFolder, share_dir="~").share_dir == Path("/home/me")
    assert load_settings(NeedsFolder, share_dir="/a/~b").share_dir == Path("/a/~b")
    with pytest.raises(SettingsError, match="--share-dir: ~nobody-at-all"):
        load_settings(NeedsFolder, share_dir="~nobody-at-all/x")


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("MINGA_LISTEN", "50051", "use host:port"),
        ("MINGA_LISTEN", "h:70000", "use host:port"),
        ("MINGA_LISTEN", "::1:50051", "brackets"),
        ("MINGA_REGISTRY", "h:0", "is not an address"),
        ("MINGA_CAPACITY", "lots", "is not a size"),
        ("MINGA_LEASE_TTL", "soon", "is not a number of seconds"),
        ("MINGA_LEASE_TTL", "nan", "is not a number of seconds"),
        ("MINGA_LEASE_TTL", "inf", "is not a number of seconds"),
        ("MINGA_LEASE_TTL", "-1", "0 or more"),
        ("MINGA_LEASE_TTL", "1e12", "1,000,000,000 at most"),
        ("MINGA_SERVING_SLOTS", "0", "1 or more is needed"),
        ("MINGA_SERVING_SLOTS", "5000", "1,000 at most is allowed"),
        ("MINGA_SERVING_SLOTS", "many", "a whole number is needed"),
        ("MINGA_REDIS_URL", "127.0.0.1:6379", "a URL is needed that begins with redis://, rediss://, unix://"),
        ("MINGA_LOG_LEVEL", "loud", "'debug', 'info', 'warning' or 'error'"),
        ("MINGA_LOG_FORMAT", "xml", "json"),
    ],
)
def test_a_wrong_value_is_reported_with_variable_and_reason(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, reason: str
) -> None:
    """The line starts with the variable and has the reason; nothing is replaced silently."""
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError) as caught:
        load_settings(Example)
    assert str(caught.value).startswith(f"{variable}: ")
    assert reason in str(caught.value)


def test_every_problem_has_a_line_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that all can be fixed at once."""
    monkeypatch.setenv("MINGA_LISTEN", "x")
    monkeypatch.setenv("MINGA_CAPACITY", "y")
    monkeypatch.setenv("MINGA_CAPACTY", "z")
    with pytest.raises(SettingsError) as caught:
        load_settings(Example)
    assert [line.split(":")[0] for line in str(caught.value).splitlines()] == [
        "MINGA_CAPACTY",
        "MINGA_LISTEN",
        "MINGA_CAPACITY",
    ]


def test_a_missing_value_names_variable_and_flag() -> None:
    """What must be given has no default."""
    with pytest.raises(SettingsError, match=r"^MINGA_SHARE_DIR \(or --share-dir\) is needed$"):
        load_settings(NeedsFolder)


def test_an_unknown_variable_stops_and_the_nearest_is_suggested(monkeypatch: pytest.MonkeyPatch) -> None:
    """A typing error in the environment is never ignored."""
    monkeypatch.setenv("MINGA_LISTN", "h:1")
    with pytest.raises(SettingsError, match=r"^MINGA_LISTN: no such setting; did you mean MINGA_LISTEN\?$"):
        load_settings(Example)


def test_kubernetes_service_variables_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Service called minga-registry puts its own variables with our prefix into every pod."""
    monkeypatch.setenv("MINGA_REGISTRY_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("MINGA_REGISTRY_SERVICE_PORT", "50051")
    monkeypatch.setenv("MINGA_REGISTRY_SERVICE_PORT_GRPC", "50051")
    monkeypatch.setenv("MINGA_REGISTRY_PORT", "tcp://10.0.0.1:50051")
    monkeypatch.setenv("MINGA_REGISTRY_PORT_50051_TCP_ADDR", "10.0.0.1")
    load_settings(Example)
    monkeypatch.setenv("MINGA_PORT", "50051")
    with pytest.raises(SettingsError, match="MINGA_PORT: no such setting"):
        load_settings(Example)


def test_secrets_show_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not in the start line, not in a repr, not in an error."""
    settings = load_settings(Example, redis_url="redis://user:s3@cret@h:1/0?password=s3cret")
    assert effective_settings(settings)["redis_url"] == "redis://user:***@h:1/0?password=***"
    assert "s3" not in repr(settings)
    monkeypatch.setenv("MINGA_REGISTRY", "redis://user:s3cret@h")
    with pytest.raises(SettingsError) as caught:
        load_settings(Example)
    assert "s3cret" not in str(caught.value)
    assert mask_secrets("redis://h:1/0") == "redis://h:1/0"
    several = "redis+sentinel://:s3cret@a:1,b:2/directory?sentinel_password=s3cret&ssl_password=s3cret"
    assert mask_secrets(several) == "redis+sentinel://:***@a:1,b:2/directory?sentinel_password=***&ssl_password=***"


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("h:4317", "http://h:4317"),
        ("h", "http://h:4317"),
        ("http://h:1/", "http://h:1"),
        ("https://traces.example.org", "https://traces.example.org:4317"),
        ("[::1]:4317", "http://[::1]:4317"),
    ],
)
def test_a_collector_is_an_address_or_a_url(given: str, url: str) -> None:
    """Plain unless it says otherwise; with the port that is OTLP's own."""
    assert load_settings(Example, traces=given).traces == url


def test_every_field_has_a_flag(capsys: pytest.CaptureFixture[str]) -> None:
    """Flags come from the settings; the help names the variable of each."""
    flags = parse_flags(Example, "example", "An example.", ["--lease-ttl", "3", "--listen=h:1"])
    assert load_settings(Example, **flags).lease_ttl == timedelta(seconds=3)
    assert flags["registry"] is None
    with pytest.raises(SystemExit):
        parse_flags(Example, "example", "An example.", ["--help"])
    shown = capsys.readouterr().out
    assert all(f"MINGA_{name.upper()}" in shown for name in Example.model_fields)


def test_importing_settings_and_logs_imports_no_grpc() -> None:
    """The command's cold start pays for neither gRPC nor metrics."""
    code = (
        "import sys, minga_runtime.settings, minga_runtime.logs; print({'grpc', 'prometheus_client'} & {*sys.modules})"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert found.stdout.strip() == "set()"


@pytest.mark.parametrize(
    "rights", [{"grant_keys": "keys.json"}, {"default_rights": "read=*"}, {"default_rights": "read=*;publish=*"}]
)
def test_rights_of_a_network_need_its_publication_key(rights: dict[str, str], tmp_path: Path) -> None:
    """Else a member without the right to publish announces what it likes, with whatever time."""
    files = {f"tls_{kind}": tmp_path / kind for kind in ("cert", "key", "ca")}
    with pytest.raises(SettingsError, match=r"MINGA_GRANT_KEYS.*MINGA_PUBLICATION_KEY") as caught:
        load_settings(DirectoryPartSettings, **files, **rights, listen="127.0.0.1:0")
    assert "\n" not in str(caught.value)
    load_settings(DirectoryPartSettings, **files, **rights, listen="127.0.0.1:0", publication_key=tmp_path / "key")
    load_settings(ExamplePart, **files, **rights, listen="127.0.0.1:0")


def test_settings_read_the_environment_without_the_loader(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is given wins, and an empty variable counts as not set; what was chosen is known as such."""
    monkeypatch.setenv("MINGA_LOG_LEVEL", "debug")
    monkeypatch.setenv("MINGA_LOG_FORMAT", "")
    found = Settings()
    assert (found.log_level, found.log_format, found.model_fields_set) == ("debug", "auto", {"log_level"})
    assert Settings(log_level="error").log_level == "error"
