"""Tags and tickets: what they prove, for which name, content, time and key, and nothing else."""

import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minga_core.errors import InvalidArgumentError, SettingsError
from minga_core.ids import ContentId
from minga_core.names import Name
from minga_core.records import MAX_INSTANT_NS, TAG_BYTES, RowKey
from minga_runtime.trust import watched_file
from minga_runtime.trust.publication_keys import (
    KEY_BYTES,
    KEY_ID_BYTES,
    TICKET_BYTES,
    TICKET_SECONDS,
    PublicationKeys,
    no_keys,
    parse_keys,
    watched_keys,
)

KEY, OTHER_KEY = b"k" * KEY_BYTES, b"o" * KEY_BYTES
KEYS = PublicationKeys([KEY])
ROW = RowKey(Name("models/llama"), ContentId(b"c" * 32))
NOW = 1_700_000_000.0

contents = st.integers(0, 3).map(lambda number: ContentId(bytes([number] * 32)))
rows = st.builds(RowKey, st.text("ab/ä", min_size=1, max_size=4).map(Name), contents)
times = st.integers(1, MAX_INSTANT_NS)


@given(rows, times, rows, times)
def test_a_tag_proves_one_name_content_and_time(row: RowKey, time: int, other: RowKey, other_time: int) -> None:
    """And none that differs in one of them."""
    tag = KEYS.tag(row, time)
    assert len(tag) == TAG_BYTES
    assert KEYS.has_signed(tag, row, time)
    for wrong in (row._replace(name=other.name), row._replace(content_id=other.content_id)):
        assert KEYS.has_signed(tag, wrong, time) == (wrong == row)
    assert KEYS.has_signed(tag, row, other_time) == (time == other_time)


@given(st.integers(0, TAG_BYTES * 8 - 1), st.integers(0, TICKET_BYTES * 8 - 1))
def test_no_bit_may_be_another_one(tag_bit: int, ticket_bit: int) -> None:
    """Of a tag or a ticket."""
    tag, ticket = KEYS.tag(ROW, 5), KEYS.ticket(ROW, NOW)
    assert not KEYS.has_signed(_flipped(tag, tag_bit), ROW, 5)
    assert not KEYS.allows(_flipped(ticket, ticket_bit), ROW, NOW)


@given(st.binary(max_size=40))
def test_no_other_bytes_are_a_tag_or_a_ticket(data: bytes) -> None:
    """Of any length, also with the id of a key that is known."""
    for wrong in (data, KEYS.key_id + data):
        assert not KEYS.has_signed(wrong, ROW, 5)
        assert not KEYS.allows(wrong, ROW, NOW)


def test_names_and_contents_are_not_run_together() -> None:
    """A name that begins with what belongs to the field before it has another tag."""
    tag = KEYS.tag(RowKey(Name("ba"), ContentId(b"a" * 32)), 5)
    assert not KEYS.has_signed(tag, RowKey(Name("a"), ContentId(b"a" * 31 + b"b")), 5)


def test_a_tag_is_no_ticket_and_a_ticket_is_no_tag() -> None:
    """Nor is a piece of one a piece of the other."""
    expiry = int(NOW) + TICKET_SECONDS
    ticket, tag = KEYS.ticket(ROW, NOW), KEYS.tag(ROW, expiry)
    assert tag[KEY_ID_BYTES:] != ticket[10:][: TAG_BYTES - KEY_ID_BYTES]
    assert not KEYS.has_signed(ticket[:KEY_ID_BYTES] + ticket[10:24], ROW, expiry)


def test_what_is_not_published_has_no_tag() -> None:
    """And none proves it."""
    assert KEYS.tag(ROW, 0) == b""
    assert not KEYS.has_signed(b"", ROW, 0)
    assert not KEYS.has_signed(KEYS.tag(ROW, 1), ROW, 0)
    assert not KEYS.has_signed(KEYS.tag(ROW, 1), ROW, -1)


def test_the_first_key_signs_and_all_verify() -> None:
    """So a key is added at the end, then moved to the front, then the old one is dropped."""
    old, both, new = KEYS, PublicationKeys([OTHER_KEY, KEY]), PublicationKeys([OTHER_KEY])
    tag = both.tag(ROW, 5)
    assert both.has_signed(old.tag(ROW, 5), ROW, 5)
    assert both.allows(old.ticket(ROW, NOW), ROW, NOW)
    assert tag[:KEY_ID_BYTES] == both.key_id == new.key_id != old.key_id
    assert not old.has_signed(tag, ROW, 5)
    assert not new.has_signed(old.tag(ROW, 5), ROW, 5)
    assert not new.allows(old.ticket(ROW, NOW), ROW, NOW)


@given(rows)
def test_a_ticket_is_for_one_row_and_a_day(other: RowKey) -> None:
    """Its last moment is before its expiry."""
    ticket = KEYS.ticket(ROW, NOW)
    assert len(ticket) == TICKET_BYTES
    assert KEYS.allows(ticket, ROW, NOW + TICKET_SECONDS - 1)
    assert not KEYS.allows(ticket, ROW, NOW + TICKET_SECONDS)
    for wrong in (ROW._replace(name=other.name), ROW._replace(content_id=other.content_id)):
        assert not KEYS.allows(ticket, wrong, NOW)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "1 to 16 keys are needed, each of 32 bytes"),
        (b"00" * 31, "1 to 16 keys"),
        (b"zz" * 32, "each line has 64 hex digits"),
        ("ä".encode() * 32, "each line has 64 hex digits"),
        (b"\xff" * 64, "each line has 64 hex digits"),
        (b"aa" * 32 + b"\n" + b"aa" * 32, "two keys are the same"),
        (b"\n".join(b"%064x" % number for number in range(17)), "1 to 16 keys"),
        (b"a" * 300_000, "more than"),
    ],
)
def test_a_file_that_is_no_good_stops_the_process(tmp_path: Path, content: bytes, words: str) -> None:
    """In one line, which does not show what was in it."""
    (tmp_path / "key").write_bytes(content)
    with pytest.raises(SettingsError, match=f"MINGA_PUBLICATION_KEY: .*{words}"):
        watched_keys(tmp_path / "key")


def test_a_file_that_is_not_there_stops_the_process(tmp_path: Path) -> None:
    """With its name."""
    with pytest.raises(SettingsError, match=r"MINGA_PUBLICATION_KEY: .*none: No such file"):
        watched_keys(tmp_path / "none")


def test_keys_are_lines_of_hex() -> None:
    """Blank lines and ends of lines of other systems are no keys, and nobody's digits are larger than another's."""
    keys = parse_keys(b"\r\n" + KEY.hex().upper().encode() + b"\r\n\n" + OTHER_KEY.hex().encode() + b"\n")
    assert keys.key_id == KEYS.key_id
    assert keys.has_signed(PublicationKeys([OTHER_KEY]).tag(ROW, 5), ROW, 5)


def test_a_key_of_another_length_is_refused() -> None:
    """With that length, and not the key."""
    with pytest.raises(InvalidArgumentError, match="each of 32 bytes"):
        PublicationKeys([KEY, b"short"])


def test_new_keys_count_and_broken_ones_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The last good ones stay, with one line; the same object while nothing changes."""
    monkeypatch.setattr(watched_file, "LOOK_SECONDS", 0.0)
    path = tmp_path / "key"
    path.write_text(KEY.hex())
    current = watched_keys(path)
    first = current()
    assert first is not None
    assert current() is first
    caplog.clear()
    with caplog.at_level(logging.INFO):
        for broken in (lambda: path.write_text("00"), path.unlink):
            broken()
            assert [current() for _ in range(3)] == [first] * 3
        assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    path.write_text(f"{OTHER_KEY.hex()}\n{KEY.hex()}\n")
    second = current()
    assert second is not None
    assert second.key_id != first.key_id
    assert second.has_signed(first.tag(ROW, 5), ROW, 5)


def test_a_network_without_a_key_has_none() -> None:
    """As all had before there were any."""
    assert watched_keys(None) is no_keys
    assert no_keys() is None


def test_a_key_that_everybody_may_read_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """And no reason not to start."""
    path = tmp_path / "key"
    path.write_text(KEY.hex())
    path.chmod(0o644)
    watched_keys(path)
    path.chmod(0o600)
    watched_keys(path)
    assert len(caplog.records) == 1
    assert "private_key_readable_by_all" in caplog.text


def _flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)
