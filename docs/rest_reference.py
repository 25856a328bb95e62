"""The REST reference for people, rendered from the OpenAPI document. A test compares docs/rest.md with it."""

from collections.abc import Iterator, Sequence
from typing import Any

from minga_locator.openapi import openapi_document

Json = dict[str, Any]

_INTRODUCTION = """\
# REST reference

Generated from the locator's OpenAPI document (`make references`); the locator itself shows it at `/docs` and
`/openapi.json`.

JSON in and out. Times are RFC 3339 in UTC, sizes are bytes, content ids are `b3:` and 64 hex digits. Lists are paged:
pass `next_page_token` as `page_token` until it is empty. Answers of look-ups and of the list of peers are at most half
a second old; placements are never remembered.

In a secure network a client shows a certificate of the network, or `Authorization: Bearer` with a grant that is of no
member, or both; a member's own grant counts over its certificate alone (ADR 34). A name that its rights to read do
not cover is answered 403 `permission_denied`, whether it exists or not, and is in no list; so is a placement for a
name that it may not publish. 401 `unauthenticated` says what is wrong with a certificate or a grant. `/livez` and
`/readyz` need neither.

```
curl --cacert ca.pem -H "Authorization: Bearer $(cat grant.jwt)" https://locator:50052/v1/files/data/x
```

Errors are `application/problem+json` (RFC 9457) with a stable `code`; see [Problem](#problem). Paths that do not exist
answer 404 `no_such_route`, methods that a path does not have 405 `method_not_allowed`. With `Retry-After` in the
answer, the same request may succeed later.
"""


def rest_markdown() -> str:
    """The reference as Markdown, ending in a newline."""
    document = openapi_document()
    lines = [_INTRODUCTION, "## Operations", ""]
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            lines += _operation(method, path, operation)
    lines += ["## Shapes", ""]
    for name, schema in sorted(document["components"]["schemas"].items()):
        lines += _shape(name, schema)
    return "\n".join(lines).rstrip() + "\n"


def _operation(method: str, path: str, operation: Json) -> Iterator[str]:
    yield from (f"### {method.upper()} {path}", "", operation["description"], "")
    rows = [_parameter(parameter) for parameter in operation.get("parameters", ())]
    if rows:
        yield from _table(("parameter", "in", "type", "default", "meaning"), rows)
    if "requestBody" in operation:
        yield from (f"Body: {_content(operation['requestBody'])}.", "")
    yield from _table(("status", "body", "meaning"), [_response(*item) for item in operation["responses"].items()])


def _parameter(parameter: Json) -> tuple[str, ...]:
    schema = parameter["schema"]
    default = "required" if parameter["required"] else _default(schema)
    return f"`{parameter['name']}`", parameter["in"], _type(schema), default, parameter.get("description", "")


def _response(status: str, response: Json) -> tuple[str, ...]:
    return status, _content(response), response["description"].replace("Success", "")


def _content(holder: Json) -> str:
    """The type of a body, and its media type where that is not plain JSON or a problem."""
    media_type, content = next(iter(holder["content"].items()))
    return _type(content["schema"]) if media_type.endswith("json") else f"`{media_type}`"


def _shape(name: str, schema: Json) -> Iterator[str]:
    yield from (f"### {name}", "", schema["description"], "")
    required = schema.get("required", ())
    rows = [
        (f"`{field}`", _type(item), "" if field in required else _default(item) or "may be absent", _meaning(item))
        for field, item in schema["properties"].items()
    ]
    yield from _table(("field", "type", "default", "meaning"), rows)


def _meaning(schema: Json) -> str:
    return str(schema.get("description", ""))


def _default(schema: Json) -> str:
    default = schema.get("default")
    return "" if default in (None, "") else f"`{default}`"


def _type(schema: Json) -> str:
    """A schema in a few words, with its range."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(_type(item) for item in schema["anyOf"])
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_type(schema['items'])}"
    kind = str(schema.get("format", schema.get("type", "any")))
    limits = [f"{word} {schema[key]:,}" for key, word in _LIMITS.items() if key in schema]
    return ", ".join([kind, *limits])


_LIMITS = {"minimum": "≥", "maximum": "≤", "minLength": "length ≥", "maxLength": "length ≤"}


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{' --- |' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(' '.join(cell.split()).replace('|', chr(92) + '|') for cell in row)} |"
    yield ""
