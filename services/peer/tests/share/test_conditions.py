"""Conditions: what lasts, how much of it is remembered, and what the log says."""

import logging
from pathlib import Path

import pytest

from minga_core.clock import SystemClock
from minga_engine.parts.ignoring import DEFAULTS
from minga_peer.share.conditions import MAX_EXAMPLES, MAX_KEYS, TEXTS, Conditions, Found, Kind


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


def test_a_million_bad_names_are_counted_and_a_few_are_remembered(conditions: Conditions) -> None:
    """A scan counts them all; what comes later, beyond the bound, is left to the next scan."""
    found = Found()
    for number in range(1_000_000):
        found.add(str(number), f"{number} is bad")
    conditions.replace(Kind.BAD_NAME, found)
    conditions.set(Kind.BAD_NAME, "one more", "one more")
    (condition,) = conditions.all()
    assert (condition.count, len(condition.examples)) == (1_000_000, MAX_EXAMPLES)
    assert len(conditions.lines(Kind.BAD_NAME)) == MAX_KEYS
    conditions.clear_keys([Kind.BAD_NAME], lambda _: True)
    assert conditions.count(Kind.BAD_NAME) == 1_000_000 - MAX_KEYS
    conditions.replace(Kind.BAD_NAME, Found())
    assert conditions.all() == []


def test_every_kind_says_what_to_do() -> None:
    """In one line for people."""
    assert set(TEXTS) == set(Kind)
    assert all(text.isprintable() and len(text) > 30 for text in TEXTS.values())


def test_every_kind_is_documented() -> None:
    """docs/sharing.md has a row for each, and each default of what is ignored."""
    text = (Path(__file__).parents[4] / "docs/sharing.md").read_text()
    assert [kind for kind in Kind if f"\n| `{kind}` | " not in text] == []
    rules = [line for line in DEFAULTS.splitlines() if line and not line.startswith("#")]
    assert [rule for rule in rules if f"`{rule}`" not in text] == []
