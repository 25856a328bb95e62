"""Peers, figures, and where an upload may go."""

import json

import httpx
import pytest

from minga_core.clock import ManualClock
from minga_locator.placements import SPACE_MARGIN_BYTES
from services.locator.tests.support import GIB, content, join, problem_of, row
from tests.support.memory_directory import MemoryDirectory

PLACE = "/v1/placements"


async def test_a_peer_is_shown_as_it_registered(
    api: httpx.AsyncClient, directory: MemoryDirectory, clock: ManualClock
) -> None:
    """All that the directory knows of a peer, with what is left of its lease."""
    await join(directory, "a", row("f"), zone="lab", free_bytes=5, gateway_url="http://a:50080")
    clock.advance(2.5)
    shown = {
        "peer_id": "a",
        "address": "a:50053",
        "zone": "lab",
        "capacity_bytes": 200 * GIB,
        "free_bytes": 5,
        "file_count": 1,
        "active_serves": 0,
        "software_version": "1.2.3",
        "gateway_url": "http://a:50080",
        "lease_remaining_seconds": 12.5,
    }
    assert (await api.get("/v1/peers/a")).json() == shown
    assert (await api.get("/v1/peers")).json() == {"peers": [shown], "next_page_token": ""}


async def test_peers_are_paged_in_order_of_their_ids(api: httpx.AsyncClient, directory: MemoryDirectory) -> None:
    """Following next_page_token gives every living peer once."""
    for index in range(5):
        await join(directory, f"p{index}")
    first = (await api.get("/v1/peers", params={"page_size": 3})).json()
    rest = await api.get("/v1/peers", params={"page_size": 3, "page_token": first["next_page_token"]})
    assert [peer["peer_id"] for peer in first["peers"] + rest.json()["peers"]] == ["p0", "p1", "p2", "p3", "p4"]
    assert rest.json()["next_page_token"] == ""


async def test_a_peer_that_is_not_alive_is_not_found(api: httpx.AsyncClient) -> None:
    """404 peer_not_found; 400 for what is no peer id."""
    assert problem_of(await api.get("/v1/peers/nobody")) == (404, "peer_not_found")
    assert problem_of(await api.get("/v1/peers/-bad-")) == (400, "invalid_argument")


async def test_stats_add_up_over_living_peers(api: httpx.AsyncClient, directory: MemoryDirectory) -> None:
    """Stats count living peers, names and bytes."""
    await join(directory, "a", row("f"), row("g"), free_bytes=5)
    await join(directory, "b", row("f"), free_bytes=7)
    answer = (await api.get("/v1/stats")).json()
    assert answer == {"live_peers": 2, "names": 2, "capacity_bytes": 400 * GIB, "free_bytes": 12, "lower_bound": False}


async def test_placements_rotate_over_peers_with_room(api: httpx.AsyncClient, directory: MemoryDirectory) -> None:
    """Each call names the next peer; none is left out, and no answer comes from the cache."""
    for name in ("a", "b", "c"):
        await join(directory, name)
    answers = [await api.post(PLACE, json={"name": "f", "size_bytes": 10}) for _ in range(6)]
    placed = [answer.json()["placements"][0]["peer_id"] for answer in answers]
    assert placed == ["a", "b", "c", "a", "b", "c"]
    assert answers[0].json() == {
        "placements": [{"peer_id": "a", "address": "a:50053", "zone": "", "free_bytes": 100 * GIB}],
        "ticket": "",
    }


async def test_a_holder_is_never_placed(api: httpx.AsyncClient, directory: MemoryDirectory) -> None:
    """Without a content id holders of the name are left out, with one those of the content."""
    await join(directory, "a", row("f", "old"))
    await join(directory, "b", row("g", "new"))
    by_name = await api.post(PLACE, json={"name": "f", "size_bytes": 1, "replicas": 20})
    assert [peer["peer_id"] for peer in by_name.json()["placements"]] == ["b"]
    wanted = {"name": "f", "size_bytes": 1, "replicas": 20, "content_id": str(content("new"))}
    by_content = await api.post(PLACE, json=wanted)
    assert [peer["peer_id"] for peer in by_content.json()["placements"]] == ["a"]


async def test_a_placement_without_peers_says_why(api: httpx.AsyncClient, directory: MemoryDirectory) -> None:
    """503 peer_unavailable, with Retry-After, when none is alive; 507 no_space when none has the file's size and the
    margin free (exactly that much is enough); an empty list, which is no error, when all with room hold the file."""
    answer = await api.post(PLACE, json={"name": "f", "size_bytes": 1})
    assert problem_of(answer) == (503, "peer_unavailable")
    assert answer.headers["retry-after"] == "1"
    await join(directory, "a", free_bytes=1000 + SPACE_MARGIN_BYTES)
    assert (await api.post(PLACE, json={"name": "f", "size_bytes": 1000})).status_code == 200
    assert problem_of(await api.post(PLACE, json={"name": "f", "size_bytes": 1001})) == (507, "no_space")
    await join(directory, "b", row("f"))
    answer = await api.post(PLACE, json={"name": "f", "size_bytes": 1001})
    assert (answer.status_code, answer.json()) == (200, {"placements": [], "ticket": ""})


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"name": "../f"}, "invalid_name"),
        ({"name": ""}, "invalid_argument"),
        ({"name": 5}, "invalid_argument"),
        ({"size_bytes": -1}, "invalid_argument"),
        ({"size_bytes": 1 << 60}, "invalid_argument"),
        ({"size_bytes": "10"}, "invalid_argument"),
        ({"size_bytes": True}, "invalid_argument"),
        ({"size_bytes": 1.0}, "invalid_argument"),
        ({"replicas": -1}, "invalid_argument"),
        ({"replicas": 21}, "invalid_argument"),
        ({"content_id": "x"}, "invalid_argument"),
        ({"unknown": 1}, "invalid_argument"),
    ],
)
async def test_values_out_of_range_are_refused(
    api: httpx.AsyncClient, directory: MemoryDirectory, change: dict[str, object], code: str
) -> None:
    """400 with the field's name in the detail, before anything is placed."""
    await join(directory, "a")
    body = json.dumps({"name": "f", "size_bytes": 10, "replicas": 1} | change)
    answer = await api.post(PLACE, content=body, headers={"Content-Type": "application/json"})
    assert problem_of(answer) == (400, code)
    if code == "invalid_argument" and "content_id" not in change:
        assert next(iter(change)) in answer.json()["detail"]
