"""The OpenAPI document."""

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
