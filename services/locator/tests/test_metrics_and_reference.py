"""What is measured, what is documented, and what can be set."""

import logging
from pathlib import Path

import httpx
import pytest
from prometheus_client import CollectorRegistry

from minga_directory import MemoryDirectory
from minga_locator.reference import rest_markdown
from minga_locator.settings import LocatorSettings
from minga_runtime.settings import undocumented
from services.locator.tests.support import join, row

REFERENCE = Path(__file__).parents[3] / "docs" / "rest.md"


def value(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    """A sample."""
    return registry.get_sample_value(f"minga_locator_{name}", labels)


async def test_look_ups_are_counted_by_outcome(
    api: httpx.AsyncClient, directory: MemoryDirectory, registry: CollectorRegistry
) -> None:
    """hit, miss and unavailable; all of them are there from the start."""
    assert [value(registry, "lookups_total", result=result) for result in ("hit", "miss", "unavailable")] == [0, 0, 0]
    await join(directory, "a", row("f"))
    await api.get("/v1/files/f")
    await api.get("/v1/files/f")
    await api.get("/v1/files/g")
    directory.available = False
    await api.get("/v1/files/h")
    assert [value(registry, "lookups_total", result=result) for result in ("hit", "miss", "unavailable")] == [2, 1, 1]
    assert value(registry, "cache_lookups_total", result="hit") == 1
    assert value(registry, "cache_lookups_total", result="miss") == 3


async def test_placements_are_counted(
    api: httpx.AsyncClient, directory: MemoryDirectory, registry: CollectorRegistry
) -> None:
    """By the peers named."""
    await join(directory, "a")
    await join(directory, "b")
    await api.post("/v1/placements", json={"name": "f", "size_bytes": 1, "replicas": 5})
    assert value(registry, "placements_total") == 2


async def test_requests_are_timed_by_route_and_class_of_status(
    api: httpx.AsyncClient, registry: CollectorRegistry
) -> None:
    """Labels are templates and classes, never names: the set of series is closed."""
    for path in ("/v1/files/a", "/v1/files/b", "/v1/files", "/nothing", "/nothing/else"):
        await api.get(path)
    counts = {
        (sample.labels["route"], sample.labels["status"]): sample.value
        for metric in registry.collect()
        for sample in metric.samples
        if sample.name == "minga_locator_request_duration_seconds_count" and sample.value
    }
    assert counts == {("/v1/files/{name:any}", "4xx"): 2, ("/v1/files", "2xx"): 1, ("none", "4xx"): 2}


async def test_metrics_are_served(api: httpx.AsyncClient) -> None:
    """In the Prometheus text format, with the build's version."""
    text = (await api.get("/metrics")).text
    assert 'minga_locator_build_info{version="' in text
    assert 'minga_locator_lookups_total{result="hit"} 0.0' in text


async def test_requests_are_logged_for_debugging_only(api: httpx.AsyncClient, caplog: pytest.LogCaptureFixture) -> None:
    """One debug event each, with its fields."""
    with caplog.at_level(logging.DEBUG, logger="minga_locator"):
        await api.get("/livez")
    (record,) = [record for record in caplog.records if record.message == "request"]
    assert record.levelno == logging.DEBUG
    fields = vars(record)["fields"]
    assert (fields["method"], fields["path"], fields["status"]) == ("GET", "/livez", 200)


async def test_the_document_declares_operations_by_id(api: httpx.AsyncClient) -> None:
    """Generated clients get these method names; every operation has words and its problems."""
    document = (await api.get("/openapi.json")).json()
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    assert {operation["operationId"] for operation in operations} == {
        "listFiles", "getFile", "lookUpFiles", "getContent", "placeUpload", "listPeers", "getPeer", "getStats",
        "live", "ready", "metrics",
    }  # fmt: skip
    for operation in operations:
        assert operation["description"]
        assert "500" in operation["responses"]
    assert "ValidationError" not in str(document)


async def test_the_documentation_page_is_there(api: httpx.AsyncClient) -> None:
    """/docs shows the document."""
    assert "/openapi.json" in (await api.get("/docs")).text


def test_the_reference_is_what_the_code_says() -> None:
    """docs/rest.md is `rest_markdown()`; `make references` rewrites it."""
    assert REFERENCE.read_text(encoding="utf-8") == rest_markdown()


def test_every_setting_is_documented() -> None:
    """Each field has its line in KNOWN_VARIABLES."""
    assert undocumented(LocatorSettings) == set()
