"""What an auditor of a secure network reads: who did what, and who was refused for which reason, at every part."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from minga import AsyncClient
from minga_core.ids import parse_address, parse_peer_id
from minga_engine.wire.messages import SourceAddress
from tests.attack.attacker import Attacker, refused
from tests.attack.calls import AT_REGISTRY, READS, Attack
from tests.attack.network import Network, network
from tests.support.authority import DAY, Authority

from .conftest import eventually, noise

pytestmark = pytest.mark.asyncio(loop_scope="module")

SOMEONE = "spiffe://test/client/someone"


class Log:
    """The audit log of all parts, which append to one file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def lines(self, **wanted: object) -> list[dict[str, Any]]:
        """The lines with these fields."""
        found = [json.loads(line) for line in self.path.read_text().splitlines()]
        return [line for line in found if wanted.items() <= line.items()]

    def shown(self, count: int = 1, **wanted: object) -> Callable[[], Awaitable[bool]]:
        """Whether there are so many such lines; the parts write some milliseconds after the event."""

        async def holds() -> bool:
            return len(self.lines(**wanted)) >= count

        return holds


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def net(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Network]:
    """A secure network with grants whose parts write an audit log, and say all that they can."""
    folder = tmp_path_factory.mktemp("audited")
    flags = ("--audit", str(folder / "audit.jsonl"), "--log-level", "debug")
    parts = {f"{part}_flags": flags for part in ("registry", "locator", "peer")}
    async with network(folder, secure=True, rights=True, peer_count=2, **parts) as made:
        yield made


@pytest.fixture
def log(net: Network) -> Log:
    """The log of the network."""
    return Log(net.credentials.parent / "audit.jsonl")


async def test_an_auditor_sees_what_members_do(
    net: Network, log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Registrations, publications, uploads, overwrites, replicas and removals, each by whom, from where and by which
    grant; and no log has a secret in it."""
    grant = net.issuer.grant(SOMEONE, read=("*",), publish=("ūp load",), jti="7")
    (tmp_path / "grant").write_text(grant)
    monkeypatch.setenv("MINGA_GRANT", str(tmp_path / "grant"))
    async with AsyncClient(locator=net.story.net.locator_url, standalone=True) as client:
        for size in (100, 200):
            (tmp_path / "source").write_bytes(noise(size))
            await client.put(tmp_path / "source", "ūp load", replicas=2, overwrite=True)
    (net.peer.share_dir / "secret.bin").unlink()

    async def removed() -> bool:
        return any(line["files"][0]["name"] == "secret.bin" for line in log.lines(event="removed", peer="peer-1"))

    await eventually(removed, "the removal is recorded")
    for event in ("uploaded", "replicated", "upload_permitted"):
        await eventually(log.shown(2, event=event), f"both puts are recorded as {event}")

    peer_1 = log.lines(event="registered", peer="peer-1")[0]
    assert (peer_1["part"], peer_1["who"]) == ("registry", "spiffe://test/peer/peer-1")
    assert parse_address(peer_1["from"])
    published = [line for line in log.lines(part="registry") if line["event"].startswith("publi")]
    assert "secret.bin" in {file["name"] for line in published for file in line["files"]}
    stored = [*log.lines(event="uploaded"), *log.lines(event="replicated")]
    permitted = log.lines(event="upload_permitted", part="locator")
    for each in (stored, permitted):
        assert {line["who"] for line in each} == {SOMEONE}
        assert {tuple(line["grant"].items()) for line in each} == {(("sub", SOMEONE), ("jti", "7"))}
    contents = [{line["files"][0]["content_id"] for line in lines} for lines in (stored, permitted)]
    assert contents[0] == contents[1]
    assert {line["files"][0]["name"] for line in stored} == {"ūp load"}
    first, second = stored[0], [line for line in stored if "replaced" in line]
    assert {line["replaced"] for line in second} == {first["files"][0]["content_id"]}
    assert sum(line["sent_bytes"] for line in stored) == 2 * 100 + 2 * 200
    assert log.lines(event="refused") == []
    secrets = [grant, await ticket(net, grant, first["files"][0]["content_id"]), *keys(net.credentials)]
    logs = [path.read_text() for path in (net.credentials.parent / "net").rglob("*.log")]
    assert len(logs) == 5
    assert not any(secret in text for secret in secrets for text in (*logs, log.path.read_text()))


async def ticket(net: Network, grant: str, content_id: str) -> str:
    """For one more upload."""
    who = net.member("command")
    body = {"name": "ūp load", "size_bytes": 200, "replicas": 0, "publish": content_id}
    async with httpx.AsyncClient(verify=who.context() or False, headers={"Authorization": f"Bearer {grant}"}) as client:
        answer = await client.post(f"{net.story.net.locator_url}/v1/placements", json=body)
    given: str = answer.json()["ticket"]
    return given


def keys(folder: Path) -> list[str]:
    """Lines of all private keys, and the key of publications."""
    lines = [line for path in folder.rglob("tls.key") for line in path.read_text().splitlines()[1:-1]]
    return [*lines, (folder / "publication.key").read_text().strip()]


async def test_an_auditor_sees_who_was_refused_and_why(net: Network, log: Log, tmp_path: Path) -> None:
    """At each part; the locator and the peer's HTTP port see handshakes that fail as well."""
    ca, issue = net.authority.pem, net.authority.issue

    async def refuses(attack: Attack, who: Attacker, part: str, reason: str) -> None:
        assert await refused(attack(net, who))
        await eventually(log.shown(event="refused", part=part, reason=reason), f"{part} records {reason}")

    expired = Attacker(ca, issue(tmp_path / "1", "client", "late", life=-DAY))
    foreign = Attacker(ca, issue(tmp_path / "2", "client", "else", network="other"))
    locator = Attacker(ca, issue(tmp_path / "3", "locator", "locator"))
    unknown = Attacker(ca, Authority().issue(tmp_path / "4", "client", "someone"))
    lists, fetches, reads = READS["lists peers"], READS["reads a chunk"], READS["reads a manifest"]
    registers = AT_REGISTRY["takes a lease over"]
    await refuses(lists, Attacker(ca), "locator", "no_certificate")
    await refuses(lists, expired, "locator", "certificate_expired")
    await refuses(lists, unknown, "locator", "handshake_failed")
    await refuses(lists, foreign, "locator", "foreign_network")
    await refuses(lists, locator, "locator", "wrong_role")
    await refuses(fetches, Attacker(ca), "peer", "no_certificate")
    await refuses(fetches, expired, "peer", "certificate_expired")
    await refuses(fetches, Attacker(ca, plain=True), "peer", "handshake_failed")
    await refuses(reads, foreign, "peer", "foreign_network")
    await refuses(reads, locator, "peer", "wrong_role")
    await refuses(registers, net.member("command"), "registry", "wrong_role")
    await refuses(registers, net.member("peer-2"), "registry", "other_peer")
    another = SourceAddress(parse_peer_id("peer-2"), parse_address("10.9.9.9:1"))
    await refuses(lambda net, who: net.chunk(who, another), net.member("peer-1"), "peer", "other_peer")

    # One for each time that it was tried: see `Attacker.call`.
    line = log.lines(part="registry", reason="other_peer")[0]
    assert (line["who"], line["action"]) == ("spiffe://test/peer/peer-2", "Register")
    assert line["message"] == "peer peer-2 may not act for peer 'peer-1'"
    (line,) = log.lines(part="locator", reason="wrong_role")
    assert line["action"] == "GET /v1/peers"
    metrics = await net.member("command").get(net.story.net.locator.address, "/metrics")
    assert 'minga_locator_refused_total{reason="wrong_role"} 1.0' in metrics.text
    assert "PRIVATE KEY" not in log.path.read_text()
