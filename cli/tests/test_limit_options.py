"""`--limit-up` and `--limit-down`: what is taken, what is refused, where it shows."""

import pytest

from minga.control import _status
from minga.settings import ClientSettings
from minga_cli.network import status_json, status_lines
from minga_core.errors import SettingsError
from minga_protos.control.v1 import control_pb2 as pb
from minga_runtime.settings import load_settings

from .conftest import FakeDaemon, Minga


def test_a_limit_is_read_from_flag_and_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The flag wins; unset and 0 are no limit."""
    monkeypatch.setenv("MINGA_LIMIT_UP", "400Mbit/s")
    monkeypatch.setenv("MINGA_LIMIT_DOWN", "1MB/s")
    settings = load_settings(ClientSettings, limit_down="0")
    assert (settings.limit_up, settings.limit_down) == (50_000_000, 0)
    monkeypatch.delenv("MINGA_LIMIT_UP")
    assert load_settings(ClientSettings).limit_up == 0


@pytest.mark.parametrize("text", ["fast", "50Mb/s", "-1MB/s", "63KiB/s", "1B"])
def test_a_limit_that_is_none_stops_the_command_with_its_name(minga: Minga, text: str) -> None:
    """One line on standard error, before anything is done."""
    ended = minga("get", "a.bin", f"--limit-down={text}")
    assert ended.code != 0
    assert ended.out == ""
    assert "--limit-down" in ended.err
    assert len(ended.err.splitlines()) == 1


def test_the_least_limit_is_told() -> None:
    """Not only that it is too low."""
    with pytest.raises(SettingsError, match=r"at least 64 KiB/s is wanted, or 0 for no limit"):
        load_settings(ClientSettings, limit_up="10kB/s")


def test_a_limit_of_one_command_is_not_silently_lost_on_the_daemon(
    minga_with_daemon: Minga, daemon: FakeDaemon
) -> None:
    """The daemon fetches with its own limits: asking for others is an error that says what to do."""
    daemon.contents = {"a.bin": b"x"}
    ended = minga_with_daemon("get", "a.bin", "--limit-down", "1MB/s")
    assert ended.code != 0
    assert "--standalone" in ended.err
    assert not daemon.asked


def test_a_limit_from_the_environment_is_no_ones_wish_for_this_command(
    minga_with_daemon: Minga, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MINGA_LIMIT_DOWN is set for the machine: the daemon has it too."""
    monkeypatch.setenv("MINGA_LIMIT_DOWN", "1MB/s")
    daemon.contents = {"a.bin": b"x"}
    assert minga_with_daemon("get", "a.bin").code == 0


def test_status_tells_the_daemons_limits() -> None:
    """When it has any; JSON always."""
    facts = pb.GetStatusResponse(peer_id="lab-7", generation=5, address="10.0.0.7:50053", share_dir="/srv/share")
    assert not any(line.startswith("limits") for line in status_lines(_status(facts)))
    facts.limit_up_bytes_per_second = 50 << 20
    status = _status(facts)
    assert "limits    50 MiB/s up, none down" in status_lines(status)
    shown = status_json(status)
    assert (shown["limit_up_bytes_per_second"], shown["limit_down_bytes_per_second"]) == (50 << 20, 0)
