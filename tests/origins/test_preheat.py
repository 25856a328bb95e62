"""Fetching ahead of time, through a whole network: by the command, and over HTTP."""

import asyncio
import json
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from minga.control import ControlClient
from minga_cli.exit_codes import ExitCode
from minga_cli.localnet import LocalNetwork
from minga_cli.localprocess import module_command
from tests.e2e.conftest import Story, eventually, noise, running
from tests.origins.containerd import containerd
from tests.origins.networks import gateways, mirrors
from tests.origins.programs import run
from tests.origins.registry import docker_registry, layer_of
from tests.support.hub import Repository, stub_hub
from tests.support.origin import Origin, OriginFaults, origin

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]
MIB = 1024 * 1024


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def started(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Story, Origin]]:
    """Three peers that fetch from an origin for others; one network for all tests, the last of which breaks it."""
    flags = ("--gateway=127.0.0.1:0", "--hub=")
    async with (
        origin() as place,
        running(tmp_path_factory.mktemp("preheat"), 3, peer_flags=(f"--fetch-allow={place.url}/", *flags)) as story,
    ):
        yield story, place


@pytest.fixture
def net(started: tuple[Story, Origin]) -> tuple[Story, Origin]:
    """That network, with an origin that has no faults, and has counted nothing."""
    started[1].faults = OriginFaults()
    started[1].requests.clear()
    started[1].sent_bytes = 0
    return started


async def preheat(network: LocalNetwork, *arguments: str) -> tuple[int, str, str]:
    """The command: its exit code, and what it prints."""
    command = ("--locator", network.locator_url, "preheat", *arguments)
    process = await asyncio.create_subprocess_exec(*module_command("minga_cli", *command), stdout=PIPE, stderr=PIPE)
    out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


async def test_one_copy_leaves_the_origin_whatever_the_number_of_peers(net: tuple[Story, Origin]) -> None:
    """1. All peers have it, by one download of the origin. 2. Again it costs nothing, and says so. 3. Some peers are
    the same ones each time. 4. It is in their caches, pinned if wanted, with its URL, and nothing of its query. 5. What
    a peer does not fetch for others, and what is private, is refused by each of them, with an exit code of its own."""
    story, place = net
    async with origin() as other:
        data = noise(6 * MIB)
        url = place.put("/v1/tool.tar.gz", data)
        code, out, err = await preheat(story.net, url)
        assert (code, err) == (0, "")
        assert "6 MiB on 3 peers" in out
        assert "6 MiB from its origin, 12 MiB from peers" in out
        assert place.count("GET") == 1
        assert place.sent_bytes == len(data)
        code, out, _ = await preheat(story.net, url, "--json")
        (found,) = json.loads(out)["items"]
        assert (code, found["done"], found["missing"]) == (0, 3, 0)
        assert {peer["local_bytes"] for peer in found["peers"]} == {len(data)}
        assert place.count("GET") == 1

        second = place.put("/v1/other.bin", noise(MIB)) + "?signature=secret"
        placed = [json.loads((await preheat(story.net, second, "--on", "2", "--pin", "--json"))[1]) for _ in range(2)]
        peers = [[peer["peer_id"] for peer in each["items"][0]["peers"]] for each in placed]
        assert len(peers[0]) == 2
        assert peers[0] == peers[1]
        for peer in story.peers:
            async with ControlClient(peer.control) as control:
                files, _ = await control.cached()
            assert {(file.url, file.pinned) for file in files if file.pinned} == (
                {(f"{place.url}/v1/other.bin", True)} if peer.peer_id in peers[0] else set()
            )
            assert url in {file.url for file in files}

        denied = other.put("/a.bin", b"a")
        code, out, err = await preheat(story.net, denied, url)
        assert code == ExitCode.DENIED
        assert err.count("fetches nothing from") == 3
        assert "6 MiB on 3 peers" in out
        assert not other.requests
        place.faults.admits = ("Basic eDp5",)
        code, _, err = await preheat(story.net, place.put("/private.bin", b"x"))
        assert code == ExitCode.DENIED
        assert err.count("the origin refuses") == 3


async def test_zones(tmp_path: Path) -> None:
    """1. What is fetched for one zone is there, and nowhere else. 2. Another zone has it from that one then, and the
    origin sends nothing more. 3. Some peers are of different zones."""
    async with (
        origin() as place,
        running(tmp_path, 4, peer_flags=(f"--fetch-allow={place.url}/",), zones=("a", "b")) as story,
    ):
        data = noise(3 * MIB)
        url = place.put("/a.bin", data)

        async def holding() -> list[bool]:
            found = []
            for peer in story.peers:
                async with ControlClient(peer.control) as control:
                    found.append(url in {file.url for file in (await control.cached())[0]})
            return found

        code, out, err = await preheat(story.net, url, "--on", "zone=a")
        assert (code, err, "3 MiB on 2 peers" in out) == (0, "", True)
        assert await holding() == [True, False, True, False]
        code, out, _ = await preheat(story.net, url, "--on", "zone=b")
        assert (code, "6 MiB from peers" in out) == (0, True)
        assert await holding() == [True] * 4
        assert place.sent_bytes == len(data)
        for number in range(3):
            url = place.put(f"/{number}.bin", noise(1000))
            assert (await preheat(story.net, url, "--on", "2"))[0] == 0
            held = await holding()
            assert (held[0] or held[2], held[1] or held[3], sum(held)) == (True, True, 2)


async def test_a_name_of_the_network_has_more_holders_then(net: tuple[Story, Origin]) -> None:
    """Of its newest version; another content under the name is replaced where that is wanted alone."""
    story, _ = net
    first = noise(2 * MIB)
    await story.share(story.peers[0], "models/a.bin", first)
    code, out, err = await preheat(story.net, "models/a.bin")
    assert (code, err) == (0, "")
    assert "4 MiB from peers, 2 MiB there before" in out
    for peer in story.peers:
        assert (peer.share_dir / "models/a.bin").read_bytes() == first
    await story.share(story.peers[0], "models/a.bin", noise(3 * MIB))
    code, _, err = await preheat(story.net, "models/a.bin", "--on", "3")
    assert (code, err.count("is not on")) == (ExitCode.NAME_TAKEN, 2)
    code, out, _ = await preheat(story.net, "models/a.bin", "--overwrite")
    assert (code, "3 MiB on 3 peers" in out) == (0, True)
    assert (await preheat(story.net, "models/none"))[0] == ExitCode.NOT_FOUND


async def test_over_http(net: tuple[Story, Origin]) -> None:
    """Lines of JSON while it goes on, and at the end how it went on each peer; errors before it begins are problems;
    a client that leaves ends it."""
    story, place = net
    async with httpx.AsyncClient(timeout=60) as client:
        data = noise(3 * MIB)
        url = place.put("/a.bin", data)
        async with ControlClient(story.peers[0].control) as control:
            gateway = (await control.status()).gateway_url
        place.faults.bytes_per_second = 2 * MIB
        answer = await client.post(f"{gateway}/preheat", content=json.dumps({"item": url, "on": "all"}))
        assert (answer.status_code, answer.headers["content-type"]) == (200, "application/x-ndjson")
        *progress, last = map(json.loads, answer.text.splitlines())
        assert progress
        assert all(each["wanted"] == 3 and "peers" not in each for each in progress)
        assert (last["done"], last["missing"], last["size_bytes"]) == (3, 0, len(data))
        assert {peer["peer_id"]: peer["held_bytes"] for peer in last["peers"]} == dict.fromkeys(
            ("peer-1", "peer-2", "peer-3"), len(data)
        )
        for body, status in (
            ("", 400),
            ("[]", 400),
            ('{"item": "a/../b"}', 400),
            ('{"item": "a", "other": 1}', 400),
            ('{"item": "a", "pin": 1}', 400),
            ('{"item": "a", "timeout_seconds": 0}', 400),
            ('{"item": "a", "on": "some"}', 400),
            ('{"item": "models/none"}', 404),
            (json.dumps({"item": url, "on": "zone=nowhere"}), 503),
            ("x" * 70_000, 400),
        ):
            refused = await client.post(f"{gateway}/preheat", content=body)
            assert (refused.status_code, refused.headers["content-type"]) == (status, "application/problem+json"), body
        assert (await client.get(f"{gateway}/preheat")).status_code == 405
        elsewhere = {"Origin": "https://evil.example"}
        assert (await client.post(f"{gateway}/preheat", content="{}", headers=elsewhere)).status_code == 403

        place.faults.bytes_per_second = 0
        place.faults.stalls_after = MIB
        slow = place.put("/slow.bin", noise(2 * MIB))
        async with client.stream("POST", f"{gateway}/preheat", json={"item": slow}) as stream:
            async for _ in stream.aiter_lines():
                break

        async def none_comes() -> bool:
            return not any(list((peer.share_dir / ".minga/parts").glob("*.data")) for peer in story.peers)

        await eventually(none_comes, "nobody fetches it any more")


async def test_containerd_pulls_what_was_fetched_ahead(tmp_path: Path) -> None:
    """One copy of the image leaves its registry, before the first node wants it; and none when all of them do."""
    async with (
        docker_registry(tmp_path / "registry") as registry,
        mirrors(tmp_path / "net", registry, 3) as found,
        containerd(tmp_path / "node") as node,
    ):
        image = registry.push("lib/x", "1", [layer_of(a=noise(9 * MIB)), layer_of(b=noise(5 * MIB)), b"1"])
        code, out, err = await preheat(found.net, f"{registry.name}/lib/x:1")
        assert (code, err) == (0, "")
        assert f"({image.digest}): 14" in out
        await registry.sent_once(*image.layers[:2])
        sent = [len(registry.sent(digest)) for digest in image.layers]
        for peer in found.peers:
            for digest in (image.digest, *image.layers):
                assert (peer.share_dir / "origins" / digest.replace(":", "/")).exists()
        for number in range(3):
            await found.install(node, number)
            await node.fetch(f"{registry.name}/lib/x:1")
        assert [len(registry.sent(digest)) for digest in image.layers] == sent


async def test_a_cache_of_the_hub_is_filled_with_what_was_fetched_ahead(tmp_path: Path) -> None:
    """Large files come from the peer's own disk then."""
    weights = {f"model-{number}.safetensors": noise(3 * MIB) for number in range(3)}
    async with stub_hub() as hub:
        hub.repositories["org/model"] = Repository({"config.json": b"{}", **weights})
        flags = ("--hub", hub.url, "--fetch-allow", hub.cdn)
        async with gateways(tmp_path / "net", 2, flags) as (net, _):
            code, out, err = await preheat(net, "hf://org/model", "--json")
            assert (code, err) == (0, "")
            (found,) = json.loads(out)["items"]
            assert found["resolved"] == [hub.repositories["org/model"].commit]
            assert hub.sent <= 1.05 * sum(map(len, weights.values()))
            sent = hub.sent
            for number, peer in enumerate(net.peers):
                flags = (
                    "--control",
                    str(peer.control),
                    "hf",
                    "fill",
                    "org/model",
                    "--cache",
                    str(tmp_path / str(number)),
                )
                await run(*module_command("minga_cli", *flags))
                blobs = {path.read_bytes() for path in (tmp_path / str(number)).glob("*/blobs/*")}
                assert blobs == {b"{}", *weights.values()}
            assert hub.sent == sent


async def test_a_peer_that_is_down_is_reported(net: tuple[Story, Origin]) -> None:
    """As long as its lease is there; the others have it. Where some are enough, another one takes its place."""
    story, place = net
    async with ControlClient(story.peers[0].control) as control:
        gateway = (await control.status()).gateway_url
    url = place.put("/a.bin", noise(2 * MIB))
    async with httpx.AsyncClient(timeout=60) as client:
        # No command starts as fast as leases end.
        story.peers[2].kill()
        answer = await client.post(f"{gateway}/preheat", json={"item": url, "timeout_seconds": 60})
    last = json.loads(answer.text.splitlines()[-1])
    errors = {peer["peer_id"]: peer["error"] for peer in last["peers"]}
    assert (last["done"], last["missing"], errors["peer-1"], errors["peer-2"]) == (2, 1, None, None)
    assert errors["peer-3"]["code"] == "peer_unavailable"
    code, out, _ = await preheat(story.net, url, "--on", "2")
    assert (code, "on 2 peers" in out) == (ExitCode.OK, True)
    code, _, err = await preheat(story.net, url, "--on", "zone=nowhere")
    assert (code, "no such peer" in err) == (ExitCode.UNAVAILABLE, True)
