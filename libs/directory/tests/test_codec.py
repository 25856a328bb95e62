"""Packed values come back as they went in, and damaged ones are no crash."""

from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minga_core.chunks import MAX_CONTENT_BYTES
from minga_core.ids import ContentId, PeerId
from minga_core.names import Name
from minga_core.records import FileRow, HoldingState, RowKey
from minga_directory.codec import (
    MARK_BYTES,
    NAME_HASH_BYTES,
    RECORD_BYTES,
    ROW_FIELD_BYTES,
    fence,
    holder_field,
    holder_hint,
    holder_value,
    key_of_row,
    name_hash,
    put_record,
    row_facts,
    row_field,
    row_value,
    version_hint,
    version_value,
)

instants = st.integers(-(1 << 63) + 1, (1 << 63) - 1)
names = st.sampled_from(["x", "a/b", "ö", "x" * 255, "日本/語"]).map(Name)
content_ids = st.binary(min_size=32, max_size=32).map(ContentId)


@given(names, content_ids, st.integers(0, MAX_CONTENT_BYTES), instants, instants, st.sampled_from(HoldingState))
def test_rows_survive_the_table(
    name: Name, content_id: ContentId, size: int, modified: int, published: int, state: HoldingState
) -> None:
    """Any row of the contract, instants before 1970 too."""
    key = RowKey(name, content_id)
    row = FileRow(key, size, modified, published, state)
    facts = row_facts(row_value(row))
    assert (facts.size_bytes, facts.modified_ns, facts.published_ns, facts.state) == (size, modified, published, state)
    assert facts.name == name
    assert key_of_row(row_field(key), row_value(row)) == key


@given(names, content_ids, st.integers(0, MAX_CONTENT_BYTES), instants, instants, st.sampled_from(HoldingState))
def test_a_record_is_what_is_stored_one_behind_the_other(
    name: Name, content_id: ContentId, size: int, modified: int, published: int, state: HoldingState
) -> None:
    """Scripts cut field and values out of it at fixed places."""
    row = FileRow(RowKey(name, content_id), size, modified, published, state)
    record = put_record(row, name_hash(name), 7)
    field, value = row_field(row.key), row_value(row)
    assert record == b"\7" + field + value[: -len(name.encode())] + version_value(size, published)
    assert (len(field), len(record)) == (ROW_FIELD_BYTES, RECORD_BYTES)


def test_scripts_know_how_long_a_record_is() -> None:
    """It is written down once more there."""
    assert f"local RECORD = {RECORD_BYTES}\n" in (files("minga_directory.scripts") / "hints.lua").read_text()


@given(instants, instants)
def test_published_times_compare_as_their_bytes(one: int, other: int) -> None:
    """Scripts keep the earlier of two without knowing the packing."""
    packed = [version_value(1, instant)[8:16] for instant in (one, other)]
    assert (one < other) == (packed[0] < packed[1])


@given(names, st.sampled_from(HoldingState), st.integers(0, 1 << 53))
def test_holder_hints_survive(name: Name, state: HoldingState, number: int) -> None:
    """Peer, hash of the name and state of a field; digits alone in the value, the push's number before the state."""
    value = holder_value(state, fence(number))
    hint = holder_hint(holder_field(PeerId("a.b-c"), name), value)
    assert hint is not None
    assert (hint.peer_id, hint.name_hash, hint.state) == ("a.b-c", name_hash(name), state)
    assert value.isdigit()
    assert int(value[:-1]) == number


@given(st.binary(min_size=NAME_HASH_BYTES, max_size=NAME_HASH_BYTES))
def test_a_hash_may_have_any_bytes(hashed: bytes) -> None:
    """NUL too, which ends the peer id before it."""
    hint = holder_hint(b"a.b-c\0" + hashed, holder_value(HoldingState.PARTIAL, fence(1)))
    assert hint is not None
    assert (hint.peer_id, hint.name_hash) == ("a.b-c", hashed)


@given(content_ids, st.integers(0, MAX_CONTENT_BYTES), instants)
def test_version_hints_survive(content_id: ContentId, size: int, published: int) -> None:
    """Size and publishing time of an entry, whether it is marked or not."""
    value = version_value(size, published)
    hint = version_hint(content_id.raw, value)
    assert hint is not None
    assert hint == version_hint(content_id.raw, value + bytes(MARK_BYTES))
    assert (hint.content_id, hint.size_bytes, hint.published_ns) == (content_id, size, published)


@given(st.binary(max_size=40), st.binary(max_size=40))
def test_damaged_values_are_told_from_good_ones(field: bytes, value: bytes) -> None:
    """Whatever is stored, a reader gets a hint, none, or a ValueError."""
    holder_hint(field, value)
    version_hint(field, value)
    if len(value) < 25 or value[24] > 1:
        with pytest.raises(ValueError, match="damaged"):
            row_facts(value)
