"""What `minga preheat` says, and its exit code."""

import json
from datetime import timedelta
from typing import Any

import pytest

from minga import Preheated, PreheatedPeer, PreheatStep, parse_peer_id
from minga.errors import FileNotFoundInDirectoryError, MingaError, NoSpaceError, PermissionDeniedError
from minga_cli import main
from minga_cli.exit_codes import ExitCode
from minga_cli.preheat import MAX_FAILURES

MIB = 1024 * 1024


def preheated(*outcomes: MingaError | tuple[int, int, int], wanted: int | None = None) -> Preheated:
    """Of one MiB: an error for each peer, or bytes by where they were from."""
    found = Preheated("oci://h.example/x:1", len(outcomes) if wanted is None else wanted)
    for number, outcome in enumerate(outcomes):
        peer_id = parse_peer_id(f"p{number:02}")
        if isinstance(outcome, MingaError):
            found.by_peer[peer_id] = PreheatedPeer(peer_id, "z", PreheatStep(0, MIB, 1), error=outcome)
        else:
            step = PreheatStep(MIB, MIB, 1, "sha256:abc", *outcome)
            found.by_peer[peer_id] = PreheatedPeer(peer_id, "z", step, done=True)
    return found


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> dict[str, Preheated | MingaError]:
    """What the client answers, by item; and at "" what it was asked."""
    found: dict[str, Any] = {"": []}

    async def preheat(client: object, item: str, **options: object) -> Preheated:
        found[""].append((item, options))
        if isinstance(found[item], MingaError):
            raise found[item]
        return found[item]

    monkeypatch.setattr("minga.AsyncClient.preheat", preheat)
    return found


def run(*arguments: str) -> int:
    return main.run(["preheat", *arguments])


def test_all_have_it(answers: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    answers["x"] = preheated((0, 0, MIB), (0, MIB, 0), (MIB, 0, 0))
    assert run("x", "--on", "zone=z", "--platform", "linux/arm64", "--pin", "--timeout", "60") == 0
    printed = capsys.readouterr()
    assert "x (sha256:abc): 1 MiB on 3 peers in" in printed.out
    assert "1 MiB from its origin, 1 MiB from peers, 1 MiB there before" in printed.out
    assert printed.err == ""
    ((item, options),) = answers[""]
    assert (item, options["on"], options["platform"], options["pin"]) == ("x", "zone=z", "linux/arm64", True)
    assert options["limit"] == timedelta(minutes=1)


def test_each_that_failed_is_said_and_the_first_one_is_the_exit_code(
    answers: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """Twenty of them; what one sends reaches the terminal without control characters."""
    errors = [NoSpaceError("full", hint="buy more"), *[PermissionDeniedError("no\x1b[2J")] * 30]
    answers["x"] = preheated((0, 0, MIB), *errors)
    assert run("x") == ExitCode.STORAGE
    printed = capsys.readouterr()
    assert "on 1 of 32 peers" in printed.out
    assert "x is not on p01: full (buy more)" in printed.err
    assert printed.err.count("is not on") == MAX_FAILURES
    assert "and not on 11 more" in printed.err
    assert "\x1b" not in printed.err


def test_too_few_peers_are_no_success(answers: dict[str, Any]) -> None:
    """Also when none of them failed; enough are one, whichever failed before."""
    answers["x"] = preheated((0, 0, MIB), wanted=2)
    assert run("x", "--on", "2") == ExitCode.UNAVAILABLE
    answers["x"] = preheated((0, 0, MIB), NoSpaceError("full"), wanted=1)
    assert run("x", "--on", "1") == 0


def test_several_items_each_have_an_outcome(answers: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    answers |= {"x": preheated((0, 0, MIB)), "y": FileNotFoundInDirectoryError("nobody shares y")}
    assert run("x", "y", "x", "--json") == ExitCode.NOT_FOUND
    first, second = json.loads(capsys.readouterr().out)["items"]
    assert (first["done"], first["missing"], first["peers"][0]["upstream_bytes"]) == (1, 0, MIB)
    assert second == {"item": "y", "error": {"code": "file_not_found", "message": "nobody shares y"}}
    assert len(answers[""]) == 2


@pytest.mark.parametrize("timeout", ["0", "-1", "nan", "inf", "1e300"])
def test_a_time_that_is_none_is_refused(answers: dict[str, Any], timeout: str) -> None:
    assert run("x", "--timeout", timeout) == ExitCode.USAGE
    assert answers[""] == []
