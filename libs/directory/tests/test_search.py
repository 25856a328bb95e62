"""Queries over names."""

import time

import pytest

from minga_directory.search import name_matcher


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
