"""The OpenAPI document, made of the operations and of their structs: every status that is sent, every shape."""

import inspect
from functools import lru_cache
from http import HTTPStatus
from typing import Any

import msgspec
from starlette.routing import compile_path

from minga_core.errors import WIRE_STATUS, Code
from minga_locator import VERSION
from minga_locator.endpoint import Operation
from minga_locator.operations import OPERATIONS
from minga_locator.problems import HTTP_CODES
from minga_locator.schemas import Problem
from minga_runtime.web.members import PROBES
from minga_runtime.web.problems import MEDIA_TYPE

Json = dict[str, Any]

_REF = "#/components/schemas/{name}"
_RETRY_AFTER = {"Retry-After": {"description": "Seconds to wait before a retry.", "schema": {"type": "integer"}}}
_SECURITY_SCHEMES = {
    "certificate": {"type": "mutualTLS", "description": "A member's certificate, of the network's CA."},
    "grant": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "A grant: of the member with the certificate, or of anybody who shows it.",
    },
}
_SECURITY: list[Json] = [{"certificate": []}, {"certificate": [], "grant": []}, {"grant": []}, {}]
"""Either or both in a secure network, none of them in an open one."""
_MEMBER_CODES = (Code.UNAUTHENTICATED, Code.PERMISSION_DENIED)
"""What any operation but the probes may answer in a secure network: who asks is not known, or may not do that."""
_STORE_CODES = (Code.STORE_UNAVAILABLE, Code.UNAVAILABLE, Code.BUSY)
"""What any operation of /v1 may answer: the store is down, the locator is full, or the caller has used its quota."""
_BODY_STATUSES = (408, 413, 422)
"""What any operation with a body may answer."""


@lru_cache(maxsize=1)
def openapi_document() -> Json:
    """The document. Callers must not change it: it is made once."""
    paths: dict[str, Json] = {}
    for operation in OPERATIONS:
        _, path, parameters = compile_path(operation.path)
        paths.setdefault(path, {})[operation.method.lower()] = _described(operation, list(parameters))
    shapes = [
        shape
        for operation in OPERATIONS
        for part in ("body", "return")
        if _is_struct(shape := operation.hints.get(part))
    ]
    _, schemas = msgspec.json.schema_components([*shapes, Problem], ref_template=_REF)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Minga locator",
            "summary": "Which peers have which file, and where an upload may go.",
            "version": VERSION,
        },
        "paths": paths,
        "security": _SECURITY,
        "components": {"schemas": schemas, "securitySchemes": _SECURITY_SCHEMES},
    }


@lru_cache(maxsize=1)
def openapi_json() -> bytes:
    """The document in JSON."""
    return msgspec.json.encode(openapi_document())


def _is_struct(shape: Any) -> bool:
    return isinstance(shape, type) and issubclass(shape, msgspec.Struct)


def _described(operation: Operation, path_parameters: list[str]) -> Json:
    first, *words = operation.handler.__name__.split("_")
    described: Json = {
        "operationId": first + "".join(word.capitalize() for word in words),
        "tags": [operation.tag],
        "description": inspect.getdoc(operation.handler),
    }
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in path_parameters
    ]
    if "query" in operation.hints:
        parameters += _query_parameters(operation.hints["query"])
    if parameters:
        described["parameters"] = parameters
    if "body" in operation.hints:
        described["requestBody"] = {"required": True, "content": _content("application/json", operation.hints["body"])}
    if operation.path in PROBES:
        described["security"] = []
    return described | {"responses": _responses(operation)}


def _query_parameters(shape: type[msgspec.Struct]) -> list[Json]:
    _, schemas = msgspec.json.schema_components([shape])
    return [
        {"name": name, "in": "query", "required": False, "schema": schema, "description": schema.pop("description")}
        for name, schema in schemas[shape.__name__]["properties"].items()
    ]


def _responses(operation: Operation) -> Json:
    answer = operation.hints["return"]
    content = (
        _content("application/json", answer) if _is_struct(answer) else {"text/plain": {"schema": {"type": "string"}}}
    )
    responses: Json = {"200": {"description": "Success", "content": content}}
    members = () if operation.path in PROBES else _MEMBER_CODES
    for code in (*operation.refusals, *members, *(_STORE_CODES if operation.path.startswith("/v1/") else ())):
        wire = WIRE_STATUS[code]
        known = responses.get(str(wire.http))
        entry = _problem(wire.http, code.value) if known is None else known
        if known is not None:
            entry["description"] += f", `{code}`"
        if wire.retryable:
            entry["headers"] = _RETRY_AFTER
        responses[str(wire.http)] = entry
    for status in (*(_BODY_STATUSES if "body" in operation.hints else ()), 500):
        responses[str(status)] = _problem(status, HTTP_CODES.get(status, Code.INTERNAL.value))
    return dict(sorted(responses.items()))


def _problem(status: int, code: str) -> Json:
    return {"description": f"{HTTPStatus(status).phrase}: `{code}`", "content": _content(MEDIA_TYPE, Problem)}


def _content(media_type: str, shape: type[msgspec.Struct]) -> Json:
    return {media_type: {"schema": {"$ref": _REF.format(name=shape.__name__)}}}
