"""Holds answers against the OpenAPI document that declares them. Knows the part of JSON Schema that the document uses,
and refuses what it does not know."""

import re
from datetime import datetime
from typing import Any

import httpx

Json = dict[str, Any]

_ANNOTATIONS = {"title", "description", "default", "format", "type"}


def check_declared(document: Json, response: httpx.Response) -> None:
    """Raises AssertionError when the document does not declare that answer, by status, media type and shape."""
    operation = _operation(document, response.request.method, response.request.url.path)
    if operation is None:
        # Unknown paths and methods have no operation; their answers are problems all the same.
        assert response.status_code in (404, 405), f"undeclared path {response.request.url.path}"
        _check(document, {"$ref": "#/components/schemas/Problem"}, response.json(), "body")
        return
    declared = operation["responses"].get(str(response.status_code))
    assert declared is not None, f"{response.request.url.path} does not declare {response.status_code}"
    media_type = response.headers["content-type"].partition(";")[0]
    assert media_type in declared["content"], f"{response.status_code} does not declare {media_type}"
    assert ("retry-after" in response.headers) <= ("Retry-After" in declared.get("headers", {}))
    if media_type.endswith("json"):
        _check(document, declared["content"][media_type]["schema"], response.json(), "body")


def _operation(document: Json, method: str, path: str) -> Json | None:
    for template, operations in document["paths"].items():
        pattern = re.sub(r"\\\{(\w+)\\\}", lambda match: ".*" if match[1] == "name" else "[^/]+", re.escape(template))
        if re.fullmatch(pattern, path, re.DOTALL):
            found: Json | None = operations.get(method.lower())
            return found
    return None


def _check(document: Json, schema: Json, value: Any, where: str) -> None:
    if "$ref" in schema:
        _check(document, document["components"]["schemas"][schema["$ref"].rpartition("/")[2]], value, where)
        return
    if schema.get("type") == "object":
        _check_object(document, schema, value, where)
    elif schema.get("type") == "array":
        assert isinstance(value, list), where
        for index, item in enumerate(value):
            _check(document, schema["items"], item, f"{where}[{index}]")
    else:
        _check_scalar(document, schema, value, where)


def _check_object(document: Json, schema: Json, value: Any, where: str) -> None:
    assert isinstance(value, dict), where
    missing = set(schema.get("required", ())) - value.keys()
    strangers = value.keys() - schema["properties"].keys()
    assert not missing, f"{where} lacks {missing}"
    assert not strangers, f"{where} has undeclared {strangers}"
    for name, item in value.items():
        _check(document, schema["properties"][name], item, f"{where}.{name}")


def _check_scalar(document: Json, schema: Json, value: Any, where: str) -> None:
    unknown = schema.keys() - _ANNOTATIONS - {"enum", "anyOf"}
    assert not unknown, f"{where}: this checker does not know {unknown}"
    if "anyOf" in schema:
        assert any(_fits(document, option, value) for option in schema["anyOf"]), f"{where}: {value!r}"
        return
    if "enum" in schema:
        assert value in schema["enum"], f"{where}: {value!r}"
    kinds = {"string": str, "integer": int, "number": int | float, "null": type(None)}
    assert isinstance(value, kinds[schema["type"]]), f"{where}: {value!r} is no {schema['type']}"
    assert not isinstance(value, bool), where
    if schema.get("format") == "date-time":
        assert datetime.fromisoformat(value).tzinfo is not None, where


def _fits(document: Json, schema: Json, value: Any) -> bool:
    try:
        _check(document, schema, value, "")
    except AssertionError:
        return False
    return True
