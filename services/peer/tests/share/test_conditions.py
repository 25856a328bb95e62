"""Conditions: what lasts, how much of it is remembered, and what the log says."""

import asyncio
import logging
import os
import sqlite3
from pathlib import Path
from types import SimpleNamespace

import pytest

from minga_core.clock import SystemClock
from minga_engine.parts.ignoring import DEFAULTS
from minga_peer.share.conditions import MAX_EXAMPLES, MAX_KEYS, TEXTS, Conditions, Found, Kind
from minga_peer.share.root import Root

from .conftest import Opener, Shared, eventually

MIB = 1024 * 1024


@pytest.fixture
def conditions() -> Conditions:
    """None yet."""
    return Conditions(SystemClock())


def test_a_condition_lasts_until_its_last_key_is_cleared(conditions: Conditions) -> None:
    """Setting and clearing are idempotent; other kinds are not touched."""
    conditions.set(Kind.INDEX, "disk full")
    for key in ("a", "b", "b"):
        conditions.set(Kind.UNREADABLE, f"{key} cannot be read", key)
    conditions.clear(Kind.UNREADABLE, "a")
    conditions.clear(Kind.UNREADABLE, "never set")
    assert [(each.kind, each.count, each.examples) for each in conditions.all()] == [
        (Kind.INDEX, 1, ("disk full",)),
        (Kind.UNREADABLE, 1, ("b cannot be read",)),
    ]
    conditions.clear(Kind.UNREADABLE, "b")
    conditions.clear(Kind.INDEX)
    assert conditions.all() == []
    assert conditions.count(Kind.UNREADABLE) == 0


def test_the_log_says_once_that_a_kind_began_and_once_that_it_is_over(
    conditions: Conditions, caplog: pytest.LogCaptureFixture
) -> None:
    """A thousand bad names are one line, and so is their end."""
    caplog.set_level(logging.INFO)
    for round_number in range(3):
        for key in range(1000):
            conditions.set(Kind.BAD_NAME, f"{key} in round {round_number}", str(key))
    for key in range(1000):
        conditions.clear(Kind.BAD_NAME, str(key))
    conditions.replace(Kind.BAD_NAME, Found())
    assert [record.getMessage() for record in caplog.records] == ["condition_began", "condition_over"]


def test_a_hundred_thousand_bad_names_are_counted_and_a_few_are_remembered(conditions: Conditions) -> None:
    """A scan counts them all; what comes later, beyond the bound, is left to the next scan."""
    found = Found()
    for number in range(100_000):
        found.add(str(number), f"{number} is bad")
    conditions.replace(Kind.BAD_NAME, found)
    conditions.set(Kind.BAD_NAME, "one more", "one more")
    (condition,) = conditions.all()
    assert (condition.count, len(condition.examples)) == (100_000, MAX_EXAMPLES)
    assert len(conditions.lines(Kind.BAD_NAME)) == MAX_KEYS
    conditions.clear_keys([Kind.BAD_NAME], lambda _: True)
    assert conditions.count(Kind.BAD_NAME) == 100_000 - MAX_KEYS
    conditions.replace(Kind.BAD_NAME, Found())
    assert conditions.all() == []


def test_every_kind_says_what_to_do() -> None:
    """In one line for people."""
    assert set(TEXTS) == set(Kind)
    assert all(text.isprintable() and len(text) > 30 for text in TEXTS.values())


async def test_a_shared_folder_that_goes_and_comes_back_is_a_condition_meanwhile(opened: Opener) -> None:
    """Renamed away by its owner, or on a disk that was lost."""
    shared = await opened()
    shared.root.rename(shared.root.with_name("away"))
    await eventually(lambda: shared.problem("cannot be read: no such file or directory"), "it is gone")
    shared.root.with_name("away").rename(shared.root)
    await eventually(lambda: not shared.store.conditions.all(), "it is back")


def test_an_empty_folder_on_another_file_system_may_not_be_mounted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder below a mount point is there all the same. With files in it, it is the shared folder now."""
    root = Root(tmp_path)
    (tmp_path / "a").write_bytes(b"x")
    root.scan()
    (tmp_path / "a").unlink()
    assert not root.scan().problems[Kind.FOLDER].lines
    monkeypatch.setattr(root, "_device", -1)
    (line,) = root.scan().problems[Kind.FOLDER].lines.values()
    assert "may not be mounted" in line
    (tmp_path / "b").write_bytes(b"x")
    assert not root.scan().problems[Kind.FOLDER].lines


async def test_no_room_and_a_read_only_disk_are_conditions_while_they_last(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk has no room when a few blocks are left, and a capacity when a hundredth of it is."""
    monkeypatch.setattr("minga_peer.share.store.SPACE_CHECK_SECONDS", 0.02)
    disk = SimpleNamespace(f_bavail=MIB, f_frsize=1)
    monkeypatch.setattr(os, "statvfs", lambda path: disk)
    shared = await opened()
    shared.drop("a", b"x" * MIB)
    await shared.shares("a", b"x" * MIB)
    disk.f_bavail = 1000
    await eventually(lambda: _kinds(shared) == {Kind.NO_SPACE}, "there is no room")
    assert shared.problem(" are free")
    with monkeypatch.context() as read_only:
        read_only.setattr(os, "access", lambda path, mode: False)
        await eventually(lambda: _kinds(shared) == {Kind.READ_ONLY}, "it is read-only")
        # Else it would be asked to store what it cannot.
        assert shared.store.status().free_bytes == 0
    disk.f_bavail = 20 * MIB
    await eventually(lambda: not _kinds(shared), "both are over")


async def test_an_index_that_cannot_be_written_is_a_condition_until_it_can(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files are shared all the same."""
    shared = await opened()
    with monkeypatch.context() as broken:
        broken.setattr("minga_peer.share.index_file._apply", _full)
        shared.drop("a", b"x")
        await shared.shares("a", b"x")
        assert shared.problem("index.sqlite cannot be written: database or disk is full")
    shared.drop("b", b"y")
    await shared.shares("b", b"y")
    await eventually(lambda: not _kinds(shared), "it is over")


def _full(*_: object) -> None:
    raise sqlite3.OperationalError("database or disk is full")


async def test_a_damaged_index_is_a_condition_until_all_is_hashed_again(opened: Opener) -> None:
    """What it knew is lost; with the next scan after the last file it is over."""
    opened.root.mkdir()
    (opened.root / "a").write_bytes(b"x")
    async with opened.running():
        pass
    (opened.root / ".minga/index.sqlite").write_bytes(b"not a database" * 1000)
    shared = await opened()
    assert shared.problem("was damaged")
    await shared.shares("a", b"x")
    shared.store.sync.rescan()
    await eventually(lambda: not _kinds(shared), "it is over")


async def test_a_file_that_always_changes_is_a_condition_until_it_is_left_alone(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is shared for moments only, so nobody gets it whole."""
    for name, seconds in {"hash_queue.MAX_SETTLE_SECONDS": 0.2, "folder_sync.SETTLED_SECONDS": 0.3}.items():
        monkeypatch.setattr(f"minga_peer.share.{name}", seconds)
    monkeypatch.setattr("minga_peer.share.store.SPACE_CHECK_SECONDS", 0.02)
    shared = await opened()
    monkeypatch.setattr(shared.store.sync._queue, "settle_seconds", 0.5)
    log = shared.drop("log", b"")

    async def grow() -> None:
        while True:
            with log.open("ab") as file:
                file.write(b"line\n")
            await asyncio.sleep(0.05)

    growing = asyncio.create_task(grow())
    await eventually(lambda: shared.problem("log changes all the time"), "it is named")
    growing.cancel()
    await asyncio.gather(growing, return_exceptions=True)
    await eventually(lambda: not _kinds(shared), "it is over")
    await shared.shares("log", log.read_bytes())


def _kinds(shared: Shared) -> set[Kind]:
    return {condition.kind for condition in shared.store.conditions.all()}


def test_every_kind_is_documented() -> None:
    """docs/sharing.md has a row for each, and each default of what is ignored."""
    text = (Path(__file__).parents[4] / "docs/sharing.md").read_text()
    assert [kind for kind in Kind if f"\n| `{kind}` | " not in text] == []
    rules = [line for line in DEFAULTS.splitlines() if line and not line.startswith("#")]
    assert [rule for rule in rules if f"`{rule}`" not in text] == []
