"""The OpenAPI document, and the page that shows it."""

import httpx


async def test_the_document_declares_every_operation(api: httpx.AsyncClient) -> None:
    """Clients that are generated from it get these method names; every operation has a description."""
    document = (await api.get("/openapi.json")).json()
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    assert {operation["operationId"] for operation in operations} == {
        "listFiles", "getFile", "lookUpFiles", "getContent", "placeUpload", "listPeers", "getPeer", "getStats",
        "live", "ready", "metrics",
    }  # fmt: skip
    for operation in operations:
        assert operation["description"]
        assert "500" in operation["responses"]


async def test_the_documentation_page_shows_the_document(api: httpx.AsyncClient) -> None:
    """/docs loads /openapi.json."""
    assert "/openapi.json" in (await api.get("/docs")).text
