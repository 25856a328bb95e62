"""What a request is answered with by its conditions (RFC 9110, 13): which bytes, and one range (14), for a GET or HEAD;
whether a PUT is wanted. Pure.

For a GET in this order: If-Match, If-Unmodified-Since, If-None-Match, If-Modified-Since, then If-Range and Range.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import formatdate, parsedate_to_datetime

_RANGE = re.compile(r"[ \t]*(?:(\d{1,19})-(\d{0,19})|-(\d{1,19}))[ \t]*")
_ETAG = re.compile(r'[ \t]*((?:W/)?"[^"]*")[ \t]*(?:,|$)')


@dataclass(frozen=True, slots=True)
class Version:
    """What a URL stands for now. modified: whole seconds since 1970."""

    etag: str
    """Strong, with its quotes."""
    modified: int
    size_bytes: int

    @property
    def last_modified(self) -> str:
        """As in HTTP's headers."""
        return formatdate(self.modified, usegmt=True)


@dataclass(frozen=True, slots=True)
class Selected:
    """The status of an answer, and the bytes start to stop - 1 of the version that are its body."""

    status: int
    start: int = 0
    stop: int = 0

    @property
    def has_content(self) -> bool:
        """Whether a GET is answered with bytes of the version: not with 304, 412 or 416."""
        return self.status in (200, 206)

    def range_headers(self, version: Version) -> dict[str, str]:
        """`Content-Length` and `Content-Range`, as far as the answer has them."""
        if self.status == 416:
            return {"Content-Range": f"bytes */{version.size_bytes}"}
        found = {"Content-Length": str(self.stop - self.start)} if self.has_content else {}
        if self.status == 206:
            found["Content-Range"] = f"bytes {self.start}-{self.stop - 1}/{version.size_bytes}"
        return found


def select(version: Version, headers: Mapping[str, str], method: str = "GET") -> Selected:
    """The answer to a GET or HEAD: 200, 206, 304, 412 or 416. headers: by names in lower case. Ranges are of GET
    alone (RFC 9110, 14.2)."""
    if not _is_wanted(version, headers):
        return Selected(412)
    if _is_known(version, headers):
        return Selected(304)
    whole = Selected(200, 0, version.size_bytes)
    asked = headers.get("range")
    if asked is None or method != "GET" or not _is_same(version, headers.get("if-range")):
        return whole
    return _ranged(asked, version.size_bytes) or whole


def why_unwanted(etag: str, headers: Mapping[str, str]) -> str | None:
    """Why a PUT is not wanted now; None when it is. etag: of what is there, empty for nothing."""
    if (match := headers.get("if-match")) is not None and not (etag and _names(match, etag)):
        return f"it is {etag}" if etag else "there is no file of that name"
    if (match := headers.get("if-none-match")) is not None and etag and _names(match, etag, weakly=True):
        return f"there is {etag} under that name"
    return None


def is_only_new(headers: Mapping[str, str]) -> bool:
    """Whether a PUT is not to replace anything, whatever it is."""
    return headers.get("if-none-match", "").strip() == "*"


def _is_wanted(version: Version, headers: Mapping[str, str]) -> bool:
    if (match := headers.get("if-match")) is not None:
        return _names(match, version.etag)
    since = _seconds(headers.get("if-unmodified-since"))
    return since is None or version.modified <= since


def _is_known(version: Version, headers: Mapping[str, str]) -> bool:
    if (match := headers.get("if-none-match")) is not None:
        return _names(match, version.etag, weakly=True)
    since = _seconds(headers.get("if-modified-since"))
    return since is not None and version.modified <= since


def _is_same(version: Version, if_range: str | None) -> bool:
    """Whether a range may be of this version. A date is as good as the version's own: several may have one second."""
    return if_range is None or if_range.strip() in (version.etag, version.last_modified)


def _ranged(asked: str, size_bytes: int) -> Selected | None:
    """None for what is no range of bytes, or is several: the answer is the whole then."""
    unit, equals, text = asked.partition("=")
    found = _RANGE.fullmatch(text)
    if unit.strip().lower() != "bytes" or not equals or found is None:
        return None
    first, last, suffix = found.groups()
    if suffix is not None:
        start, stop = max(0, size_bytes - int(suffix)), size_bytes
    else:
        start, stop = int(first), min(size_bytes, int(last) + 1 if last else size_bytes)
        if last and int(last) < start:
            return None
    return Selected(206, start, stop) if start < stop else Selected(416)


def _names(condition: str, etag: str, *, weakly: bool = False) -> bool:
    """Whether the tags of a condition, or its `*`, stand for what is there. weakly: RFC 9110, 8.8.3.2."""
    tags = _ETAG.findall(condition)
    return condition.strip() == "*" or etag in tags or (weakly and f"W/{etag}" in tags)


def _seconds(text: str | None) -> float | None:
    """None for what is no date, which is then as if it were not there."""
    if text is None:
        return None
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError, TypeError):
        return None
