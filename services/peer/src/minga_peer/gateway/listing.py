"""Folders as pages for people (and for `wget -r`, rclone, fsspec), and as JSON."""

import html
import json
from collections.abc import AsyncIterable, Mapping
from datetime import UTC, datetime
from urllib.parse import quote

from starlette.responses import Response

from minga_core.units import format_bytes
from minga_engine.wire.folders import SubFolder
from minga_engine.wire.locator_answers import ListedFile

MAX_ENTRIES = 100_000
"""Of one answer, some 20 MB."""
# No script and nothing from elsewhere: it shows names that anybody may have made up.
_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title><style>
:root {{ color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif; }}
body {{ margin: 1.5rem; }} table {{ border-collapse: collapse; }}
td {{ padding: .1rem 1.5rem .1rem 0; white-space: nowrap; }} td + td {{ text-align: right; }}
</style></head><body><h1>{title}</h1><table>
{rows}
</table>{rest}</body></html>
"""
CSP = "sandbox allow-top-navigation-by-user-activation allow-downloads; default-src 'none'; style-src 'unsafe-inline'"

Entry = ListedFile | SubFolder


def wants_json(query: Mapping[str, str], accept: str) -> bool:
    """Whether JSON is asked for: by `?format=json`, or by an Accept that names it and not HTML."""
    if (asked := query.get("format")) is not None:
        return asked == "json"
    return "application/json" in accept and "text/html" not in accept


async def listing(folder: str, entries: AsyncIterable[Entry], *, as_json: bool) -> Response | None:
    """The answer that lists a folder; None when it is not the root and has nothing in it."""
    found: list[Entry] = []
    more = False
    async for entry in entries:
        if more := len(found) == MAX_ENTRIES:
            break
        found.append(entry)
    if folder and not found:
        return None
    headers = {"Cache-Control": "no-cache", "Vary": "Accept, Origin"}
    if as_json:
        document = {"folder": folder, "entries": [_fields(entry) for entry in found], "truncated": more}
        return Response(json.dumps(document, ensure_ascii=False), 200, headers, "application/json")
    page = _page(folder, found, more=more)
    return Response(page, 200, headers | {"Content-Security-Policy": CSP}, "text/html; charset=utf-8")


def _fields(entry: Entry) -> dict[str, object]:
    if isinstance(entry, SubFolder):
        return {"name": entry.name, "type": "folder"}
    return {
        "name": entry.name,
        "type": "file",
        "size_bytes": entry.size_bytes,
        "content_id": str(entry.content_id),
        "published_time": _time(entry.published_ns).isoformat(timespec="seconds").replace("+00:00", "Z"),
    }


def _page(folder: str, entries: list[Entry], *, more: bool) -> str:
    rows = ['<tr><td><a href="../">../</a></td></tr>'] if folder else []
    rows += [_row(entry.name[len(folder) :], entry) for entry in entries]
    rest = f"<p>Only the first {MAX_ENTRIES:,} are shown.</p>" if more else ""
    return _PAGE.format(title=html.escape(f"/{folder}"), rows="\n".join(rows), rest=rest)


def _row(name: str, entry: Entry) -> str:
    # Relative, and encoded whole: a `:` in a name would make it the scheme of an address.
    link = f'<a href="{quote(name, safe="/")}">{html.escape(name)}</a>'
    if isinstance(entry, SubFolder):
        return f"<tr><td>{link}</td><td></td><td></td></tr>"
    when = _time(entry.published_ns).strftime("%Y-%m-%d %H:%M")
    return f"<tr><td>{link}</td><td>{when}</td><td>{format_bytes(entry.size_bytes)}</td></tr>"


def _time(nanos: int) -> datetime:
    return datetime.fromtimestamp(max(0, nanos) // 10**9, UTC)
