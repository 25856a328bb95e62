"""Queries over names."""

import fnmatch
import re
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from minga_directory.search import page_matcher


def matches(query: str, name: str) -> bool:
    """Whether one name matches, said in the obvious way."""
    folded = unicodedata.normalize("NFC", query).casefold()
    if not set(folded) & set("*?["):
        return folded in name.casefold()
    return re.match(fnmatch.translate(folded), name.casefold()) is not None


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
def test_a_query_matches_names(query: str, name: str, meant: bool) -> None:
    """Substring without glob characters, a glob of the whole name with them; case and normal form are ignored."""
    assert page_matcher(query)([name.encode()], 1) == [name.encode()] * meant


@pytest.mark.timeout(10)
def test_a_hostile_glob_is_harmless() -> None:
    """No query makes a matcher that backtracks for ever."""
    assert page_matcher("*a" * 40 + "*b")([b"a" * 1024], 1) == []


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
    meant = [name for name in names if matches(query, name)]
    found = page_matcher(query)([name.encode() for name in names], limit)
    assert [name.decode() for name in found] == meant[:limit]
