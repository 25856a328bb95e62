"""The inventory, which changes the file table, and the table, which remembers the changes."""

from itertools import permutations
from types import SimpleNamespace
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minga_core.attributes import NO_ATTRIBUTES
from minga_core.clock import ManualClock
from minga_core.ids import ContentId
from minga_core.names import Name
from minga_core.records import FileRow, HoldingState, RowKey
from minga_engine.parts.files import Fingerprint
from minga_engine.parts.part import Part
from minga_peer.share.content_names import ContentNames
from minga_peer.share.indexed_file import IndexedFile
from minga_peer.share.inventory import Inventory
from minga_peer.share.requested import Requested
from minga_peer.share.table import MAX_JOURNAL_ROWS, FileTable, RowsChanged

from .conftest import TableChanges


def content(number: int) -> ContentId:
    return ContentId(bytes([number]) * 32)


def file(name: str, number: int = 1) -> IndexedFile:
    return IndexedFile(Name(name), name, Fingerprint(10, number, number, 1, 1), content(number), 7)


def partial(name: str, number: int = 1) -> FileRow:
    return FileRow(RowKey(Name(name), content(number)), 10, 0, 7, HoldingState.PARTIAL)


def part(name: str, number: int = 1) -> Part:
    """What the inventory reads of a part with one chunk."""
    target = SimpleNamespace(content_id=content(number), published_ns=7, tag=b"", attributes=NO_ATTRIBUTES)
    manifest = SimpleNamespace(size_bytes=10)
    key = partial(name, number).key
    return cast("Part", SimpleNamespace(key=key, target=target, manifest=manifest, held_count=1, listed=True))


def inventory_and_changes() -> tuple[Inventory, TableChanges]:
    inventory, seen = Inventory(ManualClock(wall_seconds=0.0)), TableChanges()
    inventory.table.on_change(seen)
    return inventory, seen


def test_a_new_content_and_the_end_of_the_old_one_are_one_change() -> None:
    """No reader sees a name with neither."""
    inventory, seen = inventory_and_changes()
    inventory.update(put=[file("a", 1)])
    inventory.update(put=[file("a", 2)])
    assert seen.changes[1] == RowsChanged((file("a", 2).row,), (file("a", 1).key,))
    assert inventory.file_with(content(1)) is None


def test_a_part_that_becomes_a_file_is_one_change() -> None:
    """Its row is replaced, never removed."""
    inventory, seen = inventory_and_changes()
    download = part("a")
    inventory.add_part(download)
    inventory.update(put=[file("a")], drop_parts=[download])
    assert seen.changes == [RowsChanged((partial("a"),)), RowsChanged((file("a").row,))]


def test_a_part_of_a_complete_file_has_no_row() -> None:
    """Complete stays complete, while the part comes and when it goes; the part shows when the file goes first."""
    inventory, seen = inventory_and_changes()
    download = part("a")
    inventory.update(put=[file("a")])
    inventory.add_part(download)
    assert seen.states("a") == {HoldingState.COMPLETE}
    assert len(seen.changes) == 1
    inventory.update(remove=[Name("a")])
    assert seen.states("a") == {HoldingState.PARTIAL}
    inventory.update(put=[file("a")])
    inventory.update(drop_parts=[download])
    assert seen.states("a") == {HoldingState.COMPLETE}


names = st.sampled_from(["a", "b"])
numbers = st.integers(1, 2)
steps = st.lists(st.tuples(st.sampled_from(["put", "remove", "part", "unpart"]), names, numbers), max_size=3)


@settings(deadline=None)
@given(st.lists(steps, max_size=12))
def test_the_table_always_has_the_rows_of_files_and_parts(changes: list[list[tuple[str, str, int]]]) -> None:
    """TableChanges refuses to remove a row that it never saw; what does not change makes no change."""
    inventory, seen = inventory_and_changes()
    gone: list[str] = []
    inventory._on_file_gone = lambda file: gone.append(file.name)
    for change in changes:
        files, parts = dict(inventory.files), dict(inventory.parts)
        count, before = len(seen.changes), dict(seen.table)
        put = {name: file(name, number) for kind, name, number in change if kind == "put"}
        removed = {Name(name) for kind, name, _ in change if kind == "remove"} - put.keys()
        unparted = {partial(name, number).key for kind, name, number in change if kind == "unpart"} & parts.keys()
        gone.clear()
        inventory.update(put=put.values(), remove=removed, drop_parts=[parts[key] for key in unparted])
        assert sorted(gone) == sorted((removed | put.keys()) & files.keys())
        for kind, name, number in change:
            if kind == "part" and partial(name, number).key not in inventory.parts:
                inventory.add_part(part(name, number))
        complete = {each.key: each.row for each in inventory.files.values()}
        assert seen.table == {key: partial(key.name, key.content_id.raw[0]) for key in inventory.parts} | complete
        assert (len(seen.changes) > count) or seen.table == before
        assert inventory.shared_bytes == 10 * len(inventory.files)


def test_each_change_is_a_revision() -> None:
    """The first table is not revision 0, which stands for none."""
    table = FileTable([partial("a")])
    assert (table.rows(), table.revision) == ([partial("a")], 1)
    table.apply(RowsChanged((partial("b"),), (partial("a").key,)))
    assert (table.rows(), table.revision) == ([partial("b")], 2)


def test_a_change_sums_up_everything_since() -> None:
    """Rows that came and went are removed, rows that changed twice come once."""
    table = FileTable([partial("a")])
    newer = partial("b")._replace(state=HoldingState.COMPLETE)
    table.apply(RowsChanged((partial("b"), partial("c"))))
    table.apply(RowsChanged((newer,), (partial("c").key, partial("a").key)))
    change = table.change_since(1)
    assert change is not None
    assert (change.base_revision, change.revision, change.put) == (1, 3, (newer,))
    assert set(change.remove) == {partial("a").key, partial("c").key}
    later, same = table.change_since(2), table.change_since(3)
    assert later is not None
    assert same is not None
    assert (later.put, same.put, same.remove) == ((newer,), (), ())


def test_what_the_journal_does_not_remember_is_pushed_whole() -> None:
    """Too old a revision, one of another life, and a table that changed too much have no change."""
    table = FileTable()
    assert table.change_since(0) is None
    assert table.change_since(9) is None
    rows = [partial(f"f{number}") for number in range(MAX_JOURNAL_ROWS + 1)]
    table.apply(RowsChanged(tuple(rows)))
    assert table.change_since(1) is None
    table.apply(RowsChanged((), (rows[0].key,)))
    assert table.change_since(1) is None
    assert table.change_since(2) is not None


def test_a_large_change_of_a_large_table_comes_in_steps_and_never_as_the_whole_table(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As when a folder of a hundred thousand is renamed: each row comes once, and one that changes meanwhile once more.
    The journal holds no more rows than the table."""
    monkeypatch.setattr("minga_peer.share.table.MAX_JOURNAL_ROWS", 1_000)
    monkeypatch.setattr("minga_peer.share.table.MAX_CHANGE_ROWS", 100)
    step, rows = 50, [partial(f"f{number}") for number in range(3_000)]
    table = FileTable(rows)
    moved = rows[:1_400]
    for start in range(0, len(moved), step):
        some = moved[start : start + step]
        put = tuple(row._replace(key=row.key._replace(name=Name(f"new/{row.key.name}"))) for row in some)
        table.apply(RowsChanged(put[: step // 2], tuple(row.key for row in some[: step // 2])))
        table.apply(RowsChanged(put[step // 2 :], tuple(row.key for row in some[step // 2 :])))
    copy, reached, pushed = {row.key: row for row in rows}, 1, 0
    while (change := table.change_since(reached)) is not None and change.revision != reached:
        assert len(change.put) + len(change.remove) <= 100
        copy.update((row.key, row) for row in change.put)
        for key in change.remove:
            del copy[key]
        pushed, reached = pushed + len(change.put) + len(change.remove), change.revision
        if reached == change.base_revision + 2:
            table.apply(RowsChanged((rows[-1]._replace(size_bytes=pushed),)))
    assert copy == {row.key: row for row in table.rows()}
    assert 2 * len(moved) <= pushed <= 2 * len(moved) + table.revision
    for _ in range(3):
        table.apply(RowsChanged((), tuple(row.key for row in table.rows()[:1_400])))
    assert table.change_since(reached) is None


def test_a_content_with_many_names_keeps_each_until_it_goes() -> None:
    """Whichever goes first, and however many: a hundred thousand empty files are one content."""
    names = ContentNames()
    for order in permutations("abc"):
        for name in "abc":
            names.add(content(1), Name(name))
        left = set("abc")
        for name in order:
            assert names.any(content(1)) in left
            names.discard(content(1), Name(name))
            left.discard(name)
        assert names.any(content(1)) is None


def test_rows_that_others_request_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as a registry adds any change to; none comes twice."""
    requested = Requested()
    rows = [partial(f"f{number}", number) for number in range(8)]
    assert requested.split(rows) == ([], rows)
    for number in (1, 200, 2):
        requested.note(content(number))
    assert requested.split(rows) == (rows[1:3], [rows[0], *rows[3:]])
    monkeypatch.setattr("minga_peer.share.requested.MAX_ROWS", 1)
    assert requested.split(rows) == ([rows[1]], [rows[0], *rows[2:]])


def test_very_many_requests_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one requested longest ago is forgotten."""
    monkeypatch.setattr("minga_peer.share.requested.MAX_CONTENTS", 2)
    requested = Requested()
    for number in (1, 2, 1, 3):
        requested.note(content(number))
    rows = [partial(f"f{number}", number) for number in range(8)]
    assert requested.split(rows)[0] == [rows[1], rows[3]]
