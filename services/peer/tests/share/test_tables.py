"""The catalog, which tells changes, and the table, which remembers them."""

from hypothesis import given
from hypothesis import strategies as st

from minga_core.ids import ContentId
from minga_core.names import Name
from minga_core.records import FileRow, HoldingState, RowKey
from minga_engine.parts.content_store import RowsChanged
from minga_engine.parts.files import Stamp
from minga_peer.share.contents import BATCH_ROWS, Catalog, key_of, row_of
from minga_peer.share.index import IndexedFile
from minga_peer.share.table import MAX_JOURNAL_ROWS, LocalTable

from .conftest import Told


def content(number: int) -> ContentId:
    return ContentId(bytes([number]) * 32)


def file(name: str, number: int = 1, size: int = 10) -> IndexedFile:
    return IndexedFile(Name(name), name, Stamp(size, number, 1, 1), content(number), 7)


def partial(name: str, number: int = 1) -> FileRow:
    return FileRow(RowKey(Name(name), content(number)), 10, 1, 7, HoldingState.PARTIAL)


def catalog_with_told() -> tuple[Catalog, Told]:
    catalog, told = Catalog(), Told()
    catalog.listen(told)
    return catalog, told


def test_a_new_content_and_the_end_of_the_old_one_are_one_change() -> None:
    """Nobody sees a name with neither."""
    catalog, told = catalog_with_told()
    catalog.change(put=[file("a", 1)])
    catalog.change(put=[file("a", 2)])
    assert told.changes[1] == RowsChanged((row_of(file("a", 2)),), (key_of(file("a", 1)),))
    assert catalog.holding(content(1)) is None


def test_a_part_that_becomes_a_file_is_one_change() -> None:
    """Its row is replaced, never removed."""
    catalog, told = catalog_with_told()
    catalog.change(part_put=[partial("a")])
    catalog.change(put=[file("a")], part_remove=[partial("a").key])
    assert told.changes[1] == RowsChanged((row_of(file("a")),), ())


def test_a_part_of_a_complete_file_is_not_told() -> None:
    """Complete stays complete, while the part comes and when it goes; the part shows when the file goes first."""
    catalog, told = catalog_with_told()
    catalog.change(put=[file("a")])
    catalog.change(part_put=[partial("a")])
    assert told.states("a") == {HoldingState.COMPLETE}
    assert len(told.changes) == 1
    catalog.change(remove=[Name("a")])
    assert told.states("a") == {HoldingState.PARTIAL}
    catalog.change(put=[file("a")])
    catalog.change(part_remove=[partial("a").key])
    assert told.states("a") == {HoldingState.COMPLETE}


def test_what_does_not_change_is_not_told() -> None:
    """No empty changes, no rows as they were."""
    catalog, told = catalog_with_told()
    catalog.change(put=[file("a")])
    catalog.change(put=[file("a")])
    catalog.change()
    catalog.change(remove=[Name("b")], part_remove=[partial("c").key])
    assert len(told.changes) == 1


def test_changes_come_in_batches_of_bounded_size() -> None:
    """A first scan of many files is few changes."""
    catalog, told = catalog_with_told()
    catalog.change(put=[file(f"f{number}") for number in range(2 * BATCH_ROWS + 1)])
    assert [len(change.put) for change in told.changes] == [BATCH_ROWS, BATCH_ROWS, 1]


def test_whoever_listens_for_goodbyes_hears_each_once() -> None:
    """Removed and replaced files alike."""
    catalog = Catalog()
    gone: list[IndexedFile] = []
    catalog.listen_gone(gone.append)
    catalog.change(put=[file("a"), file("b")])
    catalog.change(put=[file("a", 2)], remove=[Name("b"), Name("c")])
    assert sorted(each.name for each in gone) == ["a", "b"]
    assert catalog.shared_bytes == 10


names = st.sampled_from(["a", "b"])
numbers = st.integers(1, 2)
steps = st.lists(st.tuples(st.sampled_from(["put", "remove", "part", "unpart"]), names, numbers), max_size=3)


@given(st.lists(steps, max_size=12))
def test_the_changes_told_always_add_up_to_the_rows(changes: list[list[tuple[str, str, int]]]) -> None:
    """A listener's table is the catalog's, whatever happens; Told refuses to remove a row that it was never told."""
    catalog, told = catalog_with_told()
    for change in changes:
        put = {name: file(name, number) for kind, name, number in change if kind == "put"}
        part_put = {partial(name, number) for kind, name, number in change if kind == "part"}
        catalog.change(
            put=put.values(),
            remove={Name(name) for kind, name, _ in change if kind == "remove"} - put.keys(),
            part_put=part_put,
            part_remove={partial(name, number).key for kind, name, number in change if kind == "unpart"},
        )
        assert told.table == {row.key: row for row in catalog.rows()}
        assert catalog.shared_bytes == 10 * len(catalog.files)


def rows_changed(put: list[FileRow], remove: list[RowKey]) -> RowsChanged:
    return RowsChanged(tuple(put), tuple(remove))


def test_each_change_is_a_revision() -> None:
    """The first table is not revision 0, which nobody has."""
    table = LocalTable([partial("a")])
    assert table.snapshot() == ([partial("a")], 1)
    table.apply(rows_changed([partial("b")], [partial("a").key]))
    assert table.snapshot() == ([partial("b")], 2)


def test_a_change_sums_up_everything_since() -> None:
    """Rows that came and went are removed, rows that changed twice come once."""
    table = LocalTable([partial("a")])
    newer = partial("b")._replace(state=HoldingState.COMPLETE)
    table.apply(rows_changed([partial("b"), partial("c")], []))
    table.apply(rows_changed([newer], [partial("c").key, partial("a").key]))
    change = table.change_since(1)
    assert change is not None
    assert (change.base_revision, change.revision, change.put) == (1, 3, (newer,))
    assert set(change.remove) == {partial("a").key, partial("c").key}
    later = table.change_since(2)
    assert later is not None
    assert later.put == (newer,)
    same = table.change_since(3)
    assert same is not None
    assert (same.put, same.remove) == ((), ())


def test_what_the_journal_does_not_remember_is_pushed_whole() -> None:
    """Too old a revision, one of another life, and a table that changed too much have no change."""
    table = LocalTable()
    assert table.change_since(0) is None
    assert table.change_since(9) is None
    rows = [partial(f"f{number}") for number in range(MAX_JOURNAL_ROWS + 1)]
    table.apply(rows_changed(rows, []))
    assert table.change_since(1) is None
    table.apply(rows_changed([], [rows[0].key]))
    assert table.change_since(2) is not None
