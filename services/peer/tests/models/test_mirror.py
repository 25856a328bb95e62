"""What clients of the Hugging Face hub get of the mirror (huggingface_hub 0.36 to 2.4)."""

import hashlib
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from minga_core.errors import InvalidArgumentError, NoSourcesError
from minga_peer.models.hub import VIA, parse_hub
from minga_peer.origins.origin_file import PRIVATE_PREFIX
from minga_runtime.trust.callers import Callers
from minga_runtime.trust.key_sources import parse_sources
from minga_runtime.trust.members import Member, Role
from services.peer.tests.models.conftest import SMALL, WEIGHTS, Mirrored, running_mirror
from tests.support.grants import Issuer, write_keys
from tests.support.hub import Repository, git_id

SHA256 = hashlib.sha256(WEIGHTS).hexdigest()
FILE = "/org/model/resolve/main/a%20b/w.safetensors"


async def test_the_head_of_a_large_file_says_all_in_one_answer(mirrored: Mirrored) -> None:
    """Without a redirect, and without what leads to xet; nothing of the body is fetched for it."""
    answer = await mirrored.ask(FILE, "HEAD")
    commit = mirrored.hub.repositories["org/model"].commit
    wanted = {"x-repo-commit": commit, "x-linked-etag": f'"{SHA256}"', "etag": f'"{SHA256}"'}
    wanted |= {"x-linked-size": str(len(WEIGHTS)), "content-length": str(len(WEIGHTS)), "accept-ranges": "bytes"}
    assert answer.status_code == 200
    assert wanted.items() <= dict(answer.headers).items()
    assert not {"location", "link"} & set(answer.headers)
    assert answer.headers["content-type"] == "application/octet-stream"
    assert not [name for name in answer.headers if "xet" in name]
    assert mirrored.hub.sent == 0


async def test_the_head_and_the_bytes_of_a_small_file(mirrored: Mirrored) -> None:
    """The hub sends a client on for it, and packs it where that is accepted; from here it comes as it is."""
    for method in ("HEAD", "GET"):
        answer = await mirrored.ask("/org/model/resolve/main/config.json", method, **{"Accept-Encoding": "gzip, br"})
        assert (answer.status_code, answer.headers["etag"]) == (200, f'"{git_id(SMALL)}"')
        assert answer.headers["content-length"] == str(len(SMALL))
        assert "content-encoding" not in answer.headers
        assert answer.headers["x-repo-commit"] == mirrored.hub.repositories["org/model"].commit
    assert answer.content == SMALL
    empty = await mirrored.ask("/org/model/resolve/main/empty")
    assert (empty.status_code, empty.headers["content-length"]) == (200, "0")


async def test_ranges(mirrored: Mirrored) -> None:
    """As downloads go on, and as datasets are streamed; of what is in git too."""
    for path, data in ((FILE, WEIGHTS), ("/org/model/resolve/main/config.json", SMALL)):
        for start in (0, 1, len(data) - 1):
            answer = await mirrored.ask(path, Range=f"bytes={start}-")
            assert (answer.status_code, answer.content) == (206, data[start:])
            assert answer.headers["content-range"] == f"bytes {start}-{len(data) - 1}/{len(data)}"
        assert (await mirrored.ask(path, Range="bytes=3-6")).content == data[3:7]
        beyond = await mirrored.ask(path, Range=f"bytes={len(data)}-")
        assert (beyond.status_code, beyond.headers["content-range"]) == (416, f"bytes */{len(data)}")


async def test_one_copy_of_a_large_file(mirrored: Mirrored) -> None:
    """It has the name of its sha256: what was fetched for an image, or by its URL, is the same."""
    for _ in range(3):
        answer = await mirrored.ask(FILE)
        assert answer.content == WEIGHTS
    assert mirrored.hub.sent == len(WEIGHTS)
    assert set(mirrored.origins.swarm) == {f"origins/sha256/{SHA256}"}
    assert mirrored.outcomes("file", "peers") == 2


async def test_a_get_costs_the_hub_no_second_head(mirrored: Mirrored) -> None:
    """It is of what the HEAD just said; each HEAD is the hub's own, since a branch moves."""
    for _ in range(2):
        await mirrored.ask(FILE, "HEAD")
    asked = mirrored.hub.count("HEAD", "/resolve/")
    await mirrored.ask(FILE)
    assert asked == mirrored.hub.count("HEAD", "/resolve/") == 2
    mirrored.clock.ahead_seconds = 61
    await mirrored.ask(FILE)
    assert mirrored.hub.count("HEAD", "/resolve/") == 3


async def test_nothing_leads_to_xet(mirrored: Mirrored) -> None:
    """Neither lists of files, nor the call that a client makes with what they say."""
    commit = mirrored.hub.repositories["org/model"].commit
    for answer in (
        await mirrored.ask(f"/api/models/org/model/tree/{commit}?recursive=true&expand=false"),
        await mirrored.ask("/api/models/org/model/paths-info/main", "POST", body=b'{"paths": ["a b/w.safetensors"]}'),
    ):
        found = {each["path"]: each for each in answer.json()}
        assert found["a b/w.safetensors"]["lfs"]["oid"] == SHA256
        assert "xetHash" not in found["a b/w.safetensors"]
    assert (await mirrored.ask(f"/api/models/org/model/xet-read-token/{commit}")).status_code == 404


async def test_the_pages_of_a_list_are_at_the_mirror(mirrored: Mirrored) -> None:
    """The hub names them by its own URL."""
    mirrored.hub.page, names, url = 1, [], "/hf/api/models/org/model/tree/main?recursive=true"
    while url:
        answer = await mirrored.client.get(url)
        names += [each["path"] for each in answer.json() if each["type"] == "file"]
        url = answer.links.get("next", {}).get("url", "")
        assert not url or url.startswith(str(mirrored.client.base_url))
    assert names == ["config.json", "a b/w.safetensors", "empty"]


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/org/absent/resolve/main/x", 401, "RepoNotFound"),
        ("/org/gated/resolve/main/x", 403, "GatedRepo"),
        ("/org/model/resolve/refs%2Fpr%2F1/x", 404, "RevisionNotFound"),
        ("/org/model/resolve/main/absent", 404, "EntryNotFound"),
    ],
)
async def test_refusals_are_the_hubs(mirrored: Mirrored, path: str, status: int, code: str) -> None:
    """With its code, and the commit where it says it: clients remember what a commit does not have."""
    mirrored.hub.repositories["org/gated"] = Repository({"x": b"1"}, token="good", gated=True)
    for method in ("HEAD", "GET"):
        answer = await mirrored.ask(path, method)
        assert (answer.status_code, answer.headers["x-error-code"]) == (status, code)
    assert ("x-repo-commit" in answer.headers) == (code == "EntryNotFound")
    assert mirrored.outcomes("metadata", "refused") == 1


async def test_what_is_private_is_had_by_the_callers_token_alone(mirrored: Mirrored) -> None:
    """It is not kept under its digest, from which others are served who ask no hub."""
    mirrored.hub.repositories["org/secret"] = Repository({"w": WEIGHTS}, token="good")
    path = "/org/secret/resolve/main/w"
    for _ in range(2):
        assert (await mirrored.ask(path, token="good")).content == WEIGHTS
    for token in ("", "bad"):
        answer = await mirrored.ask(path, token=token)
        assert (answer.status_code, answer.content) == (401, b"")
    (name,) = mirrored.origins.swarm
    assert name.startswith(PRIVATE_PREFIX)
    assert not any("authorization" in each.headers for each in mirrored.hub.asked if each.place == "cdn")
    mirrored.hub.repositories["org/secret"].token = "another"
    mirrored.clock.ahead_seconds = 61
    assert (await mirrored.ask(path, token="good")).status_code == 401


async def test_a_public_file_is_shared_whoever_asks_for_it(mirrored: Mirrored) -> None:
    """Most clients send a token; what everybody may have is not private for it."""
    assert (await mirrored.ask(FILE, token="of-somebody")).content == WEIGHTS
    assert set(mirrored.origins.swarm) == {f"origins/sha256/{SHA256}"}


async def test_a_hub_that_is_down_is_not_a_refusal(mirrored: Mirrored) -> None:
    """Clients go on with what they have cached; after a 401 or 404 they would not."""
    mirrored.hub.status = 502
    assert (await mirrored.ask(FILE, "HEAD")).status_code == 502
    await mirrored.stop_hub()
    for path in (FILE, "/api/models/org/model"):
        answer = await mirrored.ask(path)
        assert answer.status_code == 503
        assert "x-error-code" not in answer.headers


async def test_what_broke_off_goes_on_from_the_hub(mirrored: Mirrored) -> None:
    """The answer is cut, not stalled; the client asks for the rest, which is not tried through the swarm again."""
    await mirrored.ask(FILE)
    mirrored.origins.failure, mirrored.origins.good_bytes = NoSourcesError("gone"), 256 * 1024
    mirrored.hub.repositories["org/model"].files["big"] = big = bytes(300_000) + WEIGHTS
    received = b""
    async with mirrored.client.stream("GET", "/hf/org/model/resolve/main/big") as answer:
        with suppress(httpx.RemoteProtocolError):
            async for piece in answer.aiter_raw():
                received += piece
    assert 0 < len(received) < len(big)
    rest = await mirrored.ask("/org/model/resolve/main/big", Range=f"bytes={len(received)}-")
    assert (rest.status_code, received + rest.content) == (206, big)
    assert rest.headers["x-minga-source"] == "upstream"


async def test_repositories_of_one_part_and_of_other_kinds(mirrored: Mirrored) -> None:
    """`gpt2` and `datasets/x/y` have paths of other lengths."""
    mirrored.hub.repositories["gpt2"] = Repository({"w": WEIGHTS})
    mirrored.hub.repositories["datasets/org/data"] = Repository({"d.parquet": WEIGHTS})
    assert (await mirrored.ask("/gpt2/resolve/main/w")).content == WEIGHTS
    assert (await mirrored.ask("/datasets/org/data/resolve/main/d.parquet")).content == WEIGHTS


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "/org/model"),
        ("GET", "/api/resolve-cache/models/org/model/main/config.json"),
        ("GET", "/org/model/resolve/main/%2e%2e/x"),
        ("POST", "/api/repos/create"),
        ("POST", "/org/model/resolve/main/config.json"),
    ],
)
async def test_nothing_else_reaches_the_hub(mirrored: Mirrored, method: str, path: str) -> None:
    """It is a mirror for reading."""
    url = httpx.URL(mirrored.client.base_url).copy_with(raw_path=f"/hf{path}".encode())
    answer = await mirrored.client.request(method, url)
    assert answer.status_code == 404
    assert mirrored.hub.asked == []


async def test_a_page_of_a_repository_is_no_page_of_the_gateway(mirrored: Mirrored) -> None:
    """Whoever may publish a model could run scripts beside the gateway's own pages otherwise."""
    mirrored.hub.repositories["org/model"].files |= {"index.html": b"<script>"}
    for path in ("/org/model/resolve/main/index.html", FILE, "/api/models/org/model"):
        answer = await mirrored.ask(path)
        assert answer.status_code == 200
        assert answer.headers["content-security-policy"].startswith("sandbox; default-src 'none'")


async def test_bytes_that_do_not_come_are_soon_the_hubs() -> None:
    """Before the client gives up itself; its next request is answered from the hub alone."""
    async with running_mirror(read_seconds=0.05) as mirrored:
        mirrored.origins.stuck_from_byte = 0
        assert (await mirrored.ask(FILE)).status_code == 503
        answer = await mirrored.ask(FILE)
        assert (answer.status_code, answer.content) == (200, WEIGHTS)
        assert mirrored.outcomes("file", "failed") == 1


async def test_a_busy_hub_does_not_make_a_model_private(mirrored: Mirrored) -> None:
    """Asked without a token it may say that there were too many: that is not remembered."""
    mirrored.hub.anonymous_status = 429
    assert (await mirrored.ask(FILE, token="of-somebody")).content == WEIGHTS
    mirrored.hub.anonymous_status = 0
    assert (await mirrored.ask(FILE, token="of-somebody")).content == WEIGHTS
    assert f"origins/sha256/{SHA256}" in mirrored.origins.swarm


async def test_a_mirror_does_not_ask_itself(mirrored: Mirrored) -> None:
    """As when MINGA_HUB is a gateway: each would ask the next in a circle."""
    answer = await mirrored.ask(FILE, "HEAD", Via=VIA)
    assert (answer.status_code, mirrored.hub.asked) == (404, [])
    await mirrored.ask(FILE, "HEAD")
    assert {each.headers["via"] for each in mirrored.hub.asked} == {VIA}


async def test_a_token_of_the_hub_is_no_grant(tmp_path: Path) -> None:
    """In a secure network the loopback mirror is for every program of the machine, as the hub is."""
    keys = write_keys(tmp_path / "keys.json", Issuer())
    callers = Callers(Member("test", Role.PEER, "peer-1"), parse_sources(str(keys)))
    async with running_mirror(callers) as found:
        assert (await found.ask(FILE, token="hf_token")).content == WEIGHTS


@pytest.mark.parametrize("text", ["ftp://x", "https://", "https://hub/?x=1", "https://user@hub"])
def test_what_is_no_hub(text: str) -> None:
    """It is refused at the start."""
    with pytest.raises(InvalidArgumentError):
        parse_hub(text)


def test_the_url_of_a_hub() -> None:
    """Without the `/` at its end; empty for none."""
    assert [parse_hub(text) for text in ("", "https://Hub.example/", "http://h:1/a/")] == [
        "",
        "https://hub.example",
        "http://h:1/a",
    ]
