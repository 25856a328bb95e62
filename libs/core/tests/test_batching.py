"""Batches of bounded size, and orders."""

from minga_core.batching import by_size, in_turn


def test_batches_keep_the_order_and_the_bound() -> None:
    """No batch is above the bound but one item that is so alone; nothing is lost, and nothing makes no batch."""
    assert list(by_size([3, 3, 4, 9, 1, 20, 0, 0, 10], int, 10)) == [[3, 3, 4], [9, 1], [20], [0, 0, 10]]
    assert list(by_size([], int, 10)) == []


def test_machines_begin_with_different_items_and_go_on_with_the_same() -> None:
    """Else one of them would fetch all files for the others."""
    items = list(range(24))
    orders = [in_turn(items, 8) for _ in range(50)]
    assert len({order[0] for order in orders}) > 1
    for order in orders:
        assert sorted(order[:8]) == items[:8]
        assert order[8:] == items[8:]
    assert in_turn(items[:1], 8) == items[:1]
