"""Packed values come back as they went in, and damaged ones are no crash."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minga_core.chunks import MAX_CONTENT_BYTES
from minga_core.ids import ContentId, PeerId
from minga_core.names import Name
from minga_core.records import FileRow, HoldingState, RowKey
from minga_directory.codec import (
    NAME_HASH_BYTES,
    RECORD_BYTES,
    ROW_BYTES,
    TAG_BYTES,
    holder_entry,
    holder_field,
    index_record,
    key_of_row,
    name_entry,
    name_hash,
    row_field,
    row_name,
    row_summary,
    row_value,
)

times = st.integers(-(1 << 63) + 1, (1 << 63) - 1)
names = st.sampled_from(["x", "a/b", "ö", "x" * 255, "日本/語"]).map(Name)
content_ids = st.binary(min_size=32, max_size=32).map(ContentId)
rows = st.builds(
    FileRow,
    st.builds(RowKey, names, content_ids),
    st.integers(0, MAX_CONTENT_BYTES),
    times,
    times,
    st.sampled_from(HoldingState),
    st.booleans(),
)


@given(rows)
def test_rows_survive_the_table_and_the_record_of_a_script(row: FileRow) -> None:
    """Scripts cut field and values out of the record at fixed places; times may lie before 1970."""
    field, value = row_field(row.key), row_value(row)
    decoded = row_summary(value[:ROW_BYTES])
    assert decoded == (row.state, row.executable, row.size_bytes, row.modified_ns, row.published_ns)
    assert (row_name(value), key_of_row(field, value)) == (row.key.name, row.key)
    record = index_record(row, name_hash(row.key.name), 7)
    assert len(record) == RECORD_BYTES
    assert record[65] % 2 == (row.state is HoldingState.PARTIAL)
    assert record[:66] == b"\7" + field + value[: -len(row.key.name.encode())]
    for tag in (b"", bytes(TAG_BYTES)):
        entry = name_entry(row.key.content_id.raw, record[66:] + tag)
        assert entry is not None
        assert (entry.content_id, entry.size_bytes, entry.published_ns) == (row.key.content_id, row[1], row[3])


@given(rows, rows)
def test_published_times_compare_as_their_bytes(one: FileRow, other: FileRow) -> None:
    """Scripts keep the later of two without knowing the packing."""
    packed = [index_record(row, bytes(8), 0)[74:82] for row in (one, other)]
    assert (one.published_ns < other.published_ns) == (packed[0] < packed[1])


@given(st.binary(min_size=NAME_HASH_BYTES, max_size=NAME_HASH_BYTES), st.sampled_from(HoldingState))
def test_holders_survive_whatever_bytes_the_hash_has(hashed: bytes, state: HoldingState) -> None:
    """NUL too, which ends the peer id before it."""
    entry = holder_entry(b"a.b-c\0" + hashed, b"17%d" % (state is HoldingState.PARTIAL))
    assert entry is not None
    assert (entry.peer_id, entry.name_hash, entry.state) == ("a.b-c", hashed, state)
    assert holder_field(PeerId("a.b-c"), Name("x")) == b"a.b-c\0" + name_hash(Name("x"))


@given(st.binary(max_size=40), st.binary(max_size=40))
def test_damaged_values_are_detected(field: bytes, value: bytes) -> None:
    """Whatever is stored, a reader gets an entry, none, or a ValueError."""
    holder_entry(field, value)
    name_entry(field, value)
    if len(value) < 25 or value[24] > 3:
        with pytest.raises(ValueError, match="damaged"):
            row_summary(value[:ROW_BYTES])
