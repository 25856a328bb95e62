"""The audit log: its lines, and what becomes of it when the disk fails or the file is moved."""

import asyncio
import errno
import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from minga_core.errors import BusyError, MingaError, PermissionDeniedError, Refusal, SettingsError
from minga_core.ids import ContentId
from minga_runtime.quotas import RETRY_AFTER
from minga_runtime.trust import audit as module
from minga_runtime.trust import refusals as refusals_module
from minga_runtime.trust.audit import Audit
from minga_runtime.trust.members import Member, Role
from minga_runtime.trust.origin import Origin
from minga_runtime.trust.refusals import Refusals

PEER = Origin("10.0.0.1:4711", "10.0.0.1", Member("net", Role.PEER, "p-1"))
CONTENT = ContentId(bytes(32))
LIMIT_SECONDS = 20.0


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []


async def eventually(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(LIMIT_SECONDS):
        while not condition():  # noqa: ASYNC110 - another thread makes it true
            await asyncio.sleep(0.01)


@asynccontextmanager
async def writing(path: Path, registry: CollectorRegistry | None = None) -> AsyncIterator[Audit]:
    audit = Audit(path, "registry", registry or CollectorRegistry())
    try:
        yield audit
    finally:
        await audit.aclose()


async def test_an_event_is_one_line_that_says_who_what_whence_and_by_which_grant(tmp_path: Path) -> None:
    path = tmp_path / "audit"
    async with writing(path) as audit:
        audit.record("published", PEER, files=[("a", CONTENT)], grant={"sub": "ci", "jti": "7"}, peer="p-1")
    (line,) = lines(path)
    assert line.pop("time").endswith("Z")
    assert line == {
        "part": "registry",
        "event": "published",
        "who": "spiffe://net/peer/p-1",
        "from": "10.0.0.1:4711",
        "grant": {"sub": "ci", "jti": "7"},
        "peer": "p-1",
        "files": [{"name": "a", "content_id": str(CONTENT)}],
    }
    assert path.stat().st_mode & 0o777 == 0o600


async def test_no_name_breaks_a_line_or_controls_a_terminal(tmp_path: Path) -> None:
    names = ["a\nb", "\x1b[2J", "\u2028", "\x85", "ä", '"}{"', "\udcff"]
    async with writing(tmp_path / "audit") as audit:
        audit.record("published", PEER, files=[(name, CONTENT) for name in names])
    data = (tmp_path / "audit").read_bytes()
    assert data.count(b"\n") == 1
    assert all(32 <= byte < 127 for byte in data[:-1])
    assert [file["name"] for file in lines(tmp_path / "audit")[0]["files"]] == names


async def test_all_files_of_a_large_publication_are_named_in_short_lines(tmp_path: Path) -> None:
    names = [f"{number:04}" + "x" * 200 for number in range(1_000)]
    async with writing(tmp_path / "audit") as audit:
        audit.record("published", PEER, files=[(name, CONTENT) for name in names])
    assert [file["name"] for line in lines(tmp_path / "audit") for file in line["files"]] == names
    assert max(map(len, (tmp_path / "audit").read_bytes().splitlines())) < 16 * 1024


async def test_a_log_that_was_moved_goes_on_in_a_new_file(tmp_path: Path) -> None:
    """As logrotate moves it, and when it is removed."""
    path, old = tmp_path / "audit", tmp_path / "audit.1"
    async with writing(path) as audit:
        audit.record("registered", PEER, number=1)
        await eventually(lambda: lines(path))
        path.rename(old)
        audit.record("registered", PEER, number=2)
        await eventually(lambda: lines(path))
        path.unlink()
        audit.record("registered", PEER, number=3)
    assert [line["number"] for line in lines(old)] == [1]
    assert [line["number"] for line in lines(path)] == [3]


async def test_a_full_disk_delays_nobody_and_loses_nothing_that_can_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One line in the log for all of it; a line that was written in part is completed."""
    path, full, write = tmp_path / "audit", True, os.write
    failed = 0

    def limited(descriptor: int, data: Any) -> int:
        nonlocal failed
        if not full:
            return write(descriptor, data)
        failed += 1
        if failed == 1:
            return write(descriptor, data[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module.os, "write", limited)
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.01)
    async with writing(path) as audit:
        for number in range(100):
            audit.record("registered", PEER, number=number)
        await eventually(lambda: failed > 3)
        full = False
    assert [line["number"] for line in lines(path)] == list(range(100))
    assert [record.getMessage() for record in caplog.records].count("audit_not_written") == 1


async def test_what_may_not_wait_is_lost_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, full, write, registry = tmp_path / "audit", True, os.write, CollectorRegistry()

    def limited(descriptor: int, data: Any) -> int:
        if full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data)

    monkeypatch.setattr(module.os, "write", limited)
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(module, "MAX_WAITING", 5)
    async with writing(path, registry) as audit:
        for number in range(8):
            audit.record("registered", PEER, number=number)
        full = False
        await eventually(lambda: any(line["event"] == "lines_lost" for line in lines(path)))
    assert [line["number"] for line in lines(path) if line["event"] == "registered"] == [0, 1, 2, 3, 4]
    assert [line["count"] for line in lines(path) if line["event"] == "lines_lost"] == [3]
    assert registry.get_sample_value("minga_registry_audit_lost_lines_total") == 3


@pytest.mark.parametrize("kind", ["missing", "folder", "pipe"])
def test_a_target_that_is_no_file_is_refused_at_the_start(tmp_path: Path, kind: str) -> None:
    """A pipe that nobody reads is not waited for."""
    path = tmp_path / "missing" / "audit" if kind == "missing" else tmp_path / "audit"
    if kind == "folder":
        path.mkdir()
    if kind == "pipe":
        os.mkfifo(path)
    with pytest.raises(SettingsError, match="MINGA_AUDIT"):
        Audit(path, "registry", CollectorRegistry())


def refusals_of(audit: Audit) -> tuple[Refusals, CollectorRegistry]:
    registry = CollectorRegistry()
    return Refusals(registry, "registry", audit), registry


async def test_refusals_are_counted_and_repeated_ones_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flood of them fills no disk, and hides no other caller."""
    monkeypatch.setattr(refusals_module, "REPEAT_SECONDS", 0.05)
    other = Origin("10.0.0.2:1", "10.0.0.2")
    async with writing(tmp_path / "audit") as audit:
        refusals, registry = refusals_of(audit)
        for _ in range(1_000):
            refusals.record(PermissionDeniedError("may not"), PEER, "Publish")
        refusals.record(PermissionDeniedError("may not"), other, "Publish")
        refusals.record(MingaError("a bug"), other, "Publish")
        await eventually(lambda: len(lines(tmp_path / "audit")) == 3)
    assert registry.get_sample_value("minga_registry_refused_total", {"reason": "right_missing"}) == 1_001
    first, second, repeated = lines(tmp_path / "audit")
    assert (first["event"], first["reason"], first["action"]) == ("refused", "right_missing", "Publish")
    assert (first["who"], second["who"]) == ("spiffe://net/peer/p-1", "10.0.0.2")
    assert (repeated["who"], repeated["repeated"]) == (first["who"], 999)


async def test_callers_without_end_fill_neither_memory_nor_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refusals_module, "MAX_REPEATED", 10)
    monkeypatch.setattr(refusals_module, "REPEAT_SECONDS", 0.05)
    async with writing(tmp_path / "audit") as audit:
        refusals, _ = refusals_of(audit)
        for number in range(1_000):
            refusals.record(PermissionDeniedError("may not"), Origin("", f"host {number}"), "Publish")
        await eventually(lambda: lines(tmp_path / "audit")[-1:] and "repeated" in lines(tmp_path / "audit")[-1])
    assert len(lines(tmp_path / "audit")) == 12
    assert lines(tmp_path / "audit")[-1]["repeated"] == 989


async def test_the_series_of_every_reason_exist_from_the_start() -> None:
    _, registry = refusals_of(Audit(None, "registry", CollectorRegistry()))
    for reason in Refusal:
        assert registry.get_sample_value("minga_registry_refused_total", {"reason": reason.value}) == 0


def test_a_callers_own_quota_is_a_refusal_and_a_full_server_is_none() -> None:
    assert BusyError("too many", retry_after=RETRY_AFTER).refusal is None
    assert BusyError("too many", retry_after=RETRY_AFTER, refusal=Refusal.QUOTA).refusal is Refusal.QUOTA
