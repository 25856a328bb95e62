"""The clients of the Hugging Face hub that people have, unchanged but for `HF_ENDPOINT`, against a hub of ours."""

import asyncio
import os
import socket
from pathlib import Path

import httpx
import pytest

from minga_cli.localprocess import module_command
from tests.e2e.conftest import eventually
from tests.origins.hubs import MIB, MODEL, VERSIONS, Hubs, client, python
from tests.origins.programs import run
from tests.support.alone import alone, is_alone
from tests.support.hub import LARGE, Repository

pytestmark = pytest.mark.e2e

LARGE_BYTES = sum(len(data) for data in MODEL.values() if len(data) >= LARGE)


async def downloaded(version: str, home: Path, url: str, repository: str, **more: str) -> bytes:
    """A large file as the client has it then."""
    script = f"print(open(hf_hub_download('{repository}', 'model-1.safetensors'), 'rb').read().hex())"
    return bytes.fromhex(await python(version, home, url, script, **more))


def snapshot(home: Path, name: str = "org/model") -> dict[str, bytes]:
    """The files of the one snapshot that a cache has."""
    [folder] = (home / "hub" / f"models--{name.replace('/', '--')}" / "snapshots").iterdir()
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_goes_elsewhere_is_counted() -> None:
    """The other tests here, and those of libraries, say that nothing did."""
    with alone() as asked_elsewhere:
        if not is_alone():
            pytest.skip("no right to make a network namespace: clients have a proxy that refuses instead")
        assert asked_elsewhere() == 0
        places = [(socket.AF_INET, "192.0.2.1")]
        if Path("/proc/thread-self/net/if_inet6").exists():
            places += [(socket.AF_INET6, "2001:db8::1")]
        for count, (family, address) in enumerate(places, 1):
            with socket.socket(family) as connecting, pytest.raises(OSError, match="unreachable"):
                connecting.connect((address, 443))
            assert asked_elsewhere() == count


@pytest.mark.parametrize("version", VERSIONS)
async def test_two_nodes_download_a_model_of_which_the_hub_sends_one_copy(
    hubs: Hubs, tmp_path: Path, version: str
) -> None:
    """`hf download` on both at once; pages of lists, redirects, encodings and xet are not the client's matter."""
    hubs.hub.page = 2
    homes = [tmp_path / "a", tmp_path / "b"]
    await asyncio.gather(
        *(client(version, home, url, "hf", "download", "org/model") for home, url in zip(homes, hubs.urls, strict=True))
    )
    for home in homes:
        assert snapshot(home) == MODEL
    assert LARGE_BYTES <= hubs.hub.sent <= 1.05 * LARGE_BYTES
    assert not hubs.hub.count("GET", "xet")
    assert not hubs.hub.count("GET", "/v1/", "cdn")


@pytest.mark.parametrize("version", VERSIONS)
async def test_refusals_are_the_hubs(hubs: Hubs, tmp_path: Path, version: str) -> None:
    """Each is the exception that the client has for it; what is optional and absent is remembered as that."""
    hubs.hub.repositories["org/gated"] = Repository(MODEL, token="good", gated=True)
    hubs.hub.repositories["org/secret"] = Repository(MODEL, token="good")
    script = """
from huggingface_hub.utils import *
for repository, file, revision, expected in [
    ("org/gated", "model-2.safetensors", None, GatedRepoError),
    ("org/secret", "model-2.safetensors", None, RepositoryNotFoundError),
    ("org/model", "absent.json", None, EntryNotFoundError),
    ("org/model", "config.json", "absent", RevisionNotFoundError),
]:
    try:
        hf_hub_download(repository, file, revision=revision)
    except expected:
        continue
    raise SystemExit(f"no {expected}")
print(try_to_load_from_cache("org/model", "absent.json") is _CACHED_NO_EXIST)
"""
    assert "True" in await python(version, tmp_path / "a", hubs.urls[0], script)


@pytest.mark.parametrize("version", VERSIONS)
async def test_what_is_gated_is_had_by_the_callers_own_token_alone(hubs: Hubs, tmp_path: Path, version: str) -> None:
    """Also once it is in the swarm; another host than the hub never sees the token."""
    hubs.hub.repositories["org/gated"] = Repository(MODEL, token="good", gated=True)
    for name, url in zip("ab", hubs.urls, strict=True):
        found = await downloaded(version, tmp_path / name, url, "org/gated", HF_TOKEN="good")
        assert found == MODEL["model-1.safetensors"]
    assert hubs.hub.sent == len(MODEL["model-1.safetensors"])
    assert not any("authorization" in each.headers for each in hubs.hub.asked if each.place == "cdn")
    path = f"{hubs.urls[0]}/hf/org/gated/resolve/main/model-1.safetensors"
    async with httpx.AsyncClient() as asking:
        for headers in ({}, {"Authorization": "Bearer bad"}):
            answer = await asking.get(path, headers=headers)
            assert (answer.status_code, answer.headers["x-error-code"]) == (403, "GatedRepo")


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_download_outlives_a_cut_and_a_hub_that_is_down_leaves_what_is_cached(
    hubs: Hubs, tmp_path: Path, version: str
) -> None:
    """Bytes that end early are continued; without the hub the client uses what it has."""
    hubs.hub.cut_after = 4 * MIB
    assert await downloaded(version, tmp_path / "a", hubs.urls[0], "org/model") == MODEL["model-1.safetensors"]
    hubs.hub.status = 500
    assert await downloaded(version, tmp_path / "a", hubs.urls[0], "org/model") == MODEL["model-1.safetensors"]


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_filled_cache_is_all_that_an_offline_client_needs(hubs: Hubs, tmp_path: Path, version: str) -> None:
    """`minga hf fill` on both nodes: the hub sends one copy, and clients find every file, the absent ones too."""
    homes = [tmp_path / "a", tmp_path / "b"]
    for home, peer in zip(homes, hubs.peers, strict=True):
        command = module_command("minga_cli", "--control", str(peer.control), "hf", "fill", "org/model")
        for _ in range(2):
            assert "5 files" in await run(*command, environment={"HF_HOME": str(home), "HF_TOKEN": ""})
        assert snapshot(home) == MODEL
    assert hubs.hub.sent == LARGE_BYTES
    hubs.hub.status = 500
    script = """
import os
for path in (snapshot_download("org/model"), snapshot_download("org/model", revision=COMMIT)):
    print(sorted(os.listdir(path)))
print(open(hf_hub_download("org/model", "config.json")).read())
"""
    script = script.replace("COMMIT", repr(hubs.hub.repositories["org/model"].commit))
    last = await python(version, homes[0], "http://127.0.0.1:9", script, HF_HUB_OFFLINE="1")
    assert last.encode() == MODEL["config.json"]


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_model_that_was_fetched_ahead_needs_no_hub(hubs: Hubs, tmp_path: Path, version: str) -> None:
    """`minga preheat`, and then the hub is down: `hf download` has all of it on every node, and so has `minga hf fill`;
    nothing has left the hub twice."""
    locator = ("--locator", hubs.locator)
    await run(*module_command("minga_cli", *locator, "preheat", "hf://org/model"))
    assert hubs.hub.sent == LARGE_BYTES
    assert hubs.hub.count("GET", "/config.json") == 2
    hubs.hub.status = 500
    for number, url in enumerate(hubs.urls):
        home = tmp_path / str(number)
        await client(version, home, url, "hf", "download", "org/model")
        assert snapshot(home) == MODEL
    fill = module_command("minga_cli", "--control", str(hubs.peers[0].control), "hf", "fill", "org/model")
    await run(*fill, environment={"HF_HOME": str(tmp_path / "filled"), "HF_TOKEN": ""})
    assert snapshot(tmp_path / "filled") == MODEL


async def test_a_cache_in_an_ignored_part_of_the_shared_folder_is_not_shared(hubs: Hubs) -> None:
    """Where peers are pods it is there, as the one folder of the node that they have."""
    peer = hubs.peers[0]
    (peer.share_dir / ".mingaignore").write_text("/hub/\n")
    minga = module_command("minga_cli", "--control", str(peer.control))
    await run(*minga, "hf", "fill", "org/model", "--cache", str(peer.share_dir / "hub"), environment={"HF_TOKEN": ""})
    assert snapshot(peer.share_dir) == MODEL
    (peer.share_dir / "later.txt").write_text("scanned after the cache")
    listed = ""

    async def scanned() -> bool:
        nonlocal listed
        async with httpx.AsyncClient() as http:
            listed = (await http.get(f"{hubs.urls[0]}/files/", params={"format": "json"})).text
        return "later.txt" in listed

    await eventually(scanned, "what was written after the cache is listed")
    assert "origins/" in listed
    assert "hub/" not in listed


async def test_a_cache_is_filled_with_what_is_gated(hubs: Hubs, tmp_path: Path) -> None:
    """With the token of who fills it; without one the reason is the hub's."""
    hubs.hub.repositories["org/gated"] = Repository(MODEL, token="good", gated=True)
    command = module_command("minga_cli", "--control", str(hubs.peers[0].control), "hf", "fill", "org/gated@main")
    refused = await run(*command, code=9, environment={"HF_HOME": str(tmp_path / "a"), "HF_TOKEN": ""})
    assert "ask for access" in refused
    await run(*command, environment={"HF_HOME": str(tmp_path / "a"), "HF_TOKEN": "good"})
    assert snapshot(tmp_path / "a", "org/gated") == MODEL


async def test_a_cache_is_filled_from_a_slow_hub_with_one_copy(hubs: Hubs, tmp_path: Path) -> None:
    """A chunk takes longer than clients wait for the next byte: `minga hf fill` waits, and asks for none twice."""
    data = os.urandom(LARGE * 3)
    hubs.hub.repositories["org/slow"] = Repository({"model.safetensors": data})
    hubs.hub.bytes_per_second = len(data) / 12
    command = module_command("minga_cli", "--control", str(hubs.peers[0].control), "hf", "fill", "org/slow")
    await run(*command, environment={"HF_HOME": str(tmp_path / "a"), "HF_TOKEN": ""})
    assert snapshot(tmp_path / "a", "org/slow") == {"model.safetensors": data}
    assert hubs.hub.sent == len(data)
