"""The web page's files and `/docs`, as they are served. What a browser makes of them: tests/doors/test_page.py."""

import re
from importlib import resources

import httpx
import pytest

from minga_locator.openapi import openapi_document

PARTS = sorted(file.name for file in (resources.files("minga_locator") / "page").iterdir())
PATHS = ["/", "/docs", *(f"/page/{name}" for name in PARTS if name != "index.html")]
BUDGET_BYTES = 200 * 1024


@pytest.mark.parametrize("path", PATHS)
async def test_the_page_may_run_its_own_scripts_alone(api: httpx.AsyncClient, path: str) -> None:
    answer = await api.get(path)
    assert answer.status_code == 200
    policy = dict(part.strip().partition(" ")[::2] for part in answer.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == "'self'"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "access-control-allow-origin" not in answer.headers


async def test_the_page_is_small_and_loads_nothing_from_elsewhere(api: httpx.AsyncClient) -> None:
    size = 0
    for path in PATHS:
        answer = await api.get(path)
        size += len(answer.content)
        # A namespace is no address, and the gateway's address in help texts is the user's own.
        addresses = set(re.findall(r"https?://[^\s\"'`<)]+", answer.text)) - {"http://www.w3.org/2000/svg"}
        assert all(address.startswith("http://127.0.0.1") for address in addresses), (path, addresses)
    assert size < BUDGET_BYTES


async def test_an_unchanged_page_is_not_sent_again(api: httpx.AsyncClient) -> None:
    first = await api.get("/page/main.js")
    assert first.headers["cache-control"] == "no-cache"
    tag = first.headers["etag"]
    for known in (tag, f'"other", W/{tag}', "*"):
        again = await api.get("/page/main.js", headers={"If-None-Match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert (await api.get("/page/main.js", headers={"If-None-Match": '"other"'})).status_code == 200


async def test_the_page_is_read_only(api: httpx.AsyncClient) -> None:
    for path in ("/", "/docs", "/page/main.js"):
        head = await api.head(path)
        assert (head.status_code, head.content) == (200, b"")
        assert int(head.headers["content-length"]) == len((await api.get(path)).content)
        for method in ("POST", "PUT", "DELETE"):
            assert (await api.request(method, path)).status_code == 405


@pytest.mark.parametrize(
    "path", ["/page/", "/page/none.js", "/page/../pages.py", "/page/%2e%2e/pages.py", "/page/index.html"]
)
async def test_nothing_but_the_page_is_served(api: httpx.AsyncClient, path: str) -> None:
    assert (await api.get(path)).status_code == 404


async def test_the_documentation_shows_every_operation_and_shape(api: httpx.AsyncClient) -> None:
    shown = (await api.get("/docs")).text
    document = openapi_document()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert f'id="{operation["operationId"]}"><code>{method.upper()} {path}<' in shown
    for name, schema in document["components"]["schemas"].items():
        assert f'id="{name}"' in shown
        assert all(f"<code>{field}</code>" in shown for field in schema.get("properties", {}))
    linked = set(re.findall(r'href="#(\w+)"', shown))
    assert linked <= set(re.findall(r'id="(\w+)"', shown))
    assert "/openapi.json" in shown
