"""Packed values come back as they went in, and damaged ones are no crash."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minga_core.chunks import MAX_CONTENT_BYTES
from minga_core.ids import ContentId
from minga_core.names import Name
from minga_core.records import FileRow, HoldingState, RowKey
from minga_directory.codec import key_of_row, name_entry, row_field, row_summary, row_value

VERSION_BYTES = 16
"""Of a row's value, at its beginning: the value of a name's entry, as scripts cut it off."""

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
def test_rows_survive_the_table(row: FileRow) -> None:
    """Scripts cut the entry of the name from the row; times may lie before 1970."""
    field, value = row_field(row.key), row_value(row)
    assert row_summary(value) == (row.state, row.executable, row.size_bytes, row.modified_ns, row.published_ns)
    assert key_of_row(field) == row.key
    entry = name_entry(field[:32], value[:VERSION_BYTES])
    assert entry is not None
    assert (entry.content_id, entry.size_bytes, entry.published_ns) == (row.key.content_id, row[1], row[3])


@given(rows, rows)
def test_published_times_compare_as_their_bytes(one: FileRow, other: FileRow) -> None:
    """Scripts keep the later of two without knowing the packing."""
    packed = [row_value(row)[8:VERSION_BYTES] for row in (one, other)]
    assert (one.published_ns < other.published_ns) == (packed[0] < packed[1])


@given(st.binary(max_size=40), st.binary(max_size=40))
def test_damaged_values_are_detected(field: bytes, value: bytes) -> None:
    """Whatever is stored, a reader gets an entry, none, or a ValueError."""
    name_entry(field, value)
    if len(value) != 25 or value[24] > 3:
        with pytest.raises(ValueError, match="damaged"):
            row_summary(value)
