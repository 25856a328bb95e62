"""Queries over names."""

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from minga_core.names import Name
from minga_directory.search import name_matcher, page_matcher


@pytest.mark.parametrize(
    ("query", "name", "meant"),
    [
        ("", "anything", True),
        ("DATA", "my/data.bin", True),
        ("data", "dat", False),
        ("*.bin", "my/data.BIN", True),
        ("*.bin", "data.bin.txt", False),
        ("d?ta", "data", True),
        ("[a-c]*", "beta", True),
        ("[!a-c]*", "beta", False),
        ("STRASSE", "straße", True),
        ("o\u0308", "ö", True),
        ("[", "x[y", False),
    ],
)
def test_a_query_means_names(query: str, name: str, meant: bool) -> None:
    """Substring without glob characters, a glob of the whole name with them; case and normal form are ignored."""
    assert name_matcher(query)(name) is meant


def test_a_hostile_glob_is_harmless() -> None:
    """No query makes a matcher that takes longer than names are worth."""
    matches = name_matcher("*a" * 40 + "*b")
    started = time.perf_counter()
    assert not matches("a" * 1024)
    assert time.perf_counter() - started < 0.5


LETTERS = "aAbBß/.-[]!*?éÉİ日"
NAMES = st.lists(st.text(LETTERS, min_size=1, max_size=8), max_size=12)
QUERIES = st.text(LETTERS + "\n", max_size=6)


@given(NAMES, QUERIES, st.integers(1, 20))
@example(["a", "b"], "[a*b]", 20)
@example(["ab", "b"], "*", 1)
@example(["a", "b"], "a\nb", 20)
@example(["a", "b"], "a?b", 20)
@example(["a", "b"], "[a-b]", 20)
@example(["xbcdx"], "[a*bcd*e]", 20)
@example(["a]", "b"], "[]a]]", 20)
def test_a_page_of_names_is_searched_as_each_of_them_is(names: list[str], query: str, limit: int) -> None:
    """The same names in the same order, cut at the limit."""
    meant = [name for name in names if name_matcher(query)(Name(name))]
    found = page_matcher(query)([name.encode() for name in names], limit)
    assert [name.decode() for name in found] == meant[:limit]
