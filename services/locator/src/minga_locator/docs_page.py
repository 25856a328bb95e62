"""`/docs`: the OpenAPI document as one page of HTML, without scripts and without anything from elsewhere."""

import json
from collections.abc import Iterator
from html import escape
from typing import Any

from minga_locator.openapi import openapi_document

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Minga: the locator's API</title>
<link rel="icon" href="/page/icon.svg">
<link rel="stylesheet" href="/page/page.css">
</head>
<body class="docs">
<main>
<h1>The locator's API</h1>
<p>{summary} The same for programs: <a href="/openapi.json">openapi.json</a>. The network itself:
<a href="/">the page</a>.</p>
<nav aria-label="Operations"><ul>{contents}</ul></nav>
{operations}
<h2>Shapes</h2>
{shapes}
</main>
</body>
</html>
"""


def docs_html() -> str:
    """The page."""
    document = openapi_document()
    operations = [
        (method.upper(), path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    contents = (
        f'<li><a href="#{operation["operationId"]}"><code>{method} {escape(path)}</code></a></li>'
        for method, path, operation in operations
    )
    return _PAGE.format(
        summary=escape(document["info"]["summary"]),
        contents="".join(contents),
        operations="".join(_operation(*each) for each in operations),
        shapes="".join(_shape(*each) for each in document["components"]["schemas"].items()),
    )


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    heading = f'<h2 id="{operation["operationId"]}"><code>{method} {escape(path)}</code></h2>'
    words = "".join(f"<p>{_text(part)}</p>" for part in operation["description"].split("\n\n"))
    parameters = [
        (each["name"], _type(each["schema"]), each.get("description", "")) for each in operation.get("parameters", ())
    ]
    body = operation.get("requestBody")
    if body is not None:
        parameters.append(("body", _content(body), ""))
    answers = [(status, _content(answer), answer["description"]) for status, answer in operation["responses"].items()]
    return f"<section>{heading}{words}{_table('Parameters', parameters)}{_table('Answers', answers)}</section>"


def _shape(name: str, schema: dict[str, Any]) -> str:
    fields = [
        (field, _type(described), described.get("description", ""))
        for field, described in schema.get("properties", {}).items()
    ]
    words = f"<p>{_text(schema['description'])}</p>" if "description" in schema else ""
    return f'<section><h3 id="{escape(name)}">{escape(name)}</h3>{words}{_table("Fields", fields)}</section>'


def _table(caption: str, rows: list[tuple[str, str, str]]) -> str:
    """rows: a name, HTML that says its type, and words."""
    if not rows:
        return ""
    cells = "".join(
        f'<tr><th scope="row"><code>{escape(name)}</code></th><td>{kind}</td><td>{_text(words)}</td></tr>'
        for name, kind, words in rows
    )
    return f"<table><caption>{caption}</caption><tbody>{cells}</tbody></table>"


def _content(described: dict[str, Any]) -> str:
    return " or ".join(
        f"{_type(content['schema'])} <small>{escape(media_type)}</small>"
        for media_type, content in described["content"].items()
    )


def _type(schema: dict[str, Any]) -> str:
    """The type of a schema in HTML, with a link where it is a shape, and its limits."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#{name}">{name}</a>'
    if "anyOf" in schema:
        return " or ".join(map(_type, schema["anyOf"]))
    if schema.get("type") == "array":
        return f"list of {_type(schema['items'])}"
    return " ".join([escape(str(schema.get("type", ""))), *_limits(schema)])


def _limits(schema: dict[str, Any]) -> Iterator[str]:
    for key, words in (("minimum", "≥"), ("maximum", "≤"), ("format", ""), ("default", "default")):
        if schema.get(key, "") != "":
            value = schema[key] if isinstance(schema[key], str) else json.dumps(schema[key])
            yield f"<small>{words} {escape(value)}</small>"


def _text(text: str) -> str:
    """Text in HTML; what stands between backticks is code."""
    parts = escape(text).split("`")
    return "".join(f"<code>{part}</code>" if number % 2 else part for number, part in enumerate(parts))
