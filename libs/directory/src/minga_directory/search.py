"""Which names a query means. Pure; shared by both implementations of the reader."""

import fnmatch
import re
import unicodedata
from collections.abc import Callable

_GLOB_CHARACTERS = frozenset("*?[")


def name_matcher(query: str) -> Callable[[str], bool]:
    """Says of a name whether the query means it.

    A query with `*`, `?` or `[` is a glob that the whole name must match, `*` spanning `/`; any other is a substring.
    Case is ignored in both. An empty query means every name.
    """
    folded = unicodedata.normalize("NFC", query).casefold()
    if not folded:
        return lambda name: True
    if _GLOB_CHARACTERS.isdisjoint(folded):
        return lambda name: folded in name.casefold()
    # fnmatch makes each `*` an atomic group, so that no glob backtracks exponentially.
    pattern = re.compile(fnmatch.translate(folded))
    return lambda name: pattern.match(name.casefold()) is not None
