"""Match names against a query. Pure."""

import fnmatch
import re
import unicodedata
from collections.abc import Callable, Sequence

_GLOB_CHARACTERS = frozenset("*?[")
_WILDCARDS = re.compile(r"[*?]+")
_MAX_RUNS = 4


def page_matcher(query: str) -> Callable[[Sequence[bytes], int], list[bytes]]:
    """A function that finds among many names (in UTF-8) those that match, in their order, and at most so many.

    A query with `*`, `?` or `[` is a glob that the whole name must match, `*` spanning `/`; any other is a substring.
    Case is ignored in both. An empty query matches every name. Names are not decoded one by one: they have no control
    characters, so they are searched as lines of one text, for what every match must have.
    """
    folded = _folded(query)
    if not folded:
        return lambda names, limit: list(names[:limit])
    if _GLOB_CHARACTERS.isdisjoint(folded):
        return lambda names, limit: _matching(names, limit, [folded], None)
    # fnmatch makes each `*` an atomic group, so that no glob backtracks exponentially.
    runs, pattern = _runs(folded), re.compile(fnmatch.translate(folded))
    return lambda names, limit: _matching(names, limit, runs, pattern)


def _folded(query: str) -> str:
    return unicodedata.normalize("NFC", query).casefold()


def _runs(glob: str) -> list[str]:
    """What stands in every name that the glob matches: its longest runs without wildcards. At least an empty one."""
    # What is between a first `[` and a last `]` may be a set of characters.
    outside = [glob] if "[" not in glob else [glob.partition("[")[0], glob.rpartition("]")[2] if "]" in glob else ""]
    runs = [run for part in outside for run in _WILDCARDS.split(part) if "[" not in run]
    return sorted(runs, key=len, reverse=True)[:_MAX_RUNS] or [""]


def _matching(
    names: Sequence[bytes], limit: int, runs: Sequence[str], pattern: "re.Pattern[str] | None"
) -> list[bytes]:
    """Names that have one of the runs, the rarest, and match the pattern if there is one.

    Folding changes each character by itself, so lines stay what they are.
    """
    if not names or any("\n" in run for run in runs):
        return []
    text = b"\n".join(names).decode().casefold()
    run = min(runs, key=text.count) if len(runs) > 1 else runs[0]
    found: list[bytes] = []
    line = at = 0
    while len(found) < limit and (hit := text.find(run, at)) >= 0:
        line += text.count("\n", at, hit)
        start, end = text.rfind("\n", 0, hit) + 1, text.find("\n", hit)
        end = len(text) if end < 0 else end
        if pattern is None or pattern.match(text, start, end):
            found.append(names[line])
        line, at = line + 1, end + 1
    return found
