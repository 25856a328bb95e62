"""Grants of issuers whose keys are fetched (OpenID Connect): they count while an issuer is well, keep counting while it
is away, and an issuer that answers nonsense, or never ends, delays nobody."""

import asyncio
import json
import ssl
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
import pytest_asyncio

from minga_protos.registry.v1 import registry_pb2 as pb
from minga_runtime.trust.grant_keys import UNKNOWN_KEY_SECONDS
from minga_runtime.trust.jwks_url import FETCH_SECONDS, MAX_DOCUMENT_BYTES
from tests.e2e.conftest import eventually
from tests.support.authority import Authority
from tests.support.grants import Issuer, key_set

from .attacker import Attacker
from .calls import upload
from .network import PEER, REGISTRY, Network, network

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.e2e]

MODES = ("good", "late", "rubbish", "huge", "moved", "moved in its configuration", "slow", "silent", "error")
"""Of issuers: what each answers when it is asked for its keys. `late` is away at first."""
EVIL = Issuer(key_id="evil")
"""Its key is where bad issuers point to."""


class Issuers:
    """One server with a path for each issuer; `answers` may change."""

    def __init__(self, folder: Path) -> None:
        self.over = threading.Event()
        self.asked: Counter[str] = Counter()
        made = Authority().issue(folder, "locator", "issuer")
        self.ca = made / "ca.crt"
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(made / "tls.crt", made / "tls.key")
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"issuers": self}))
        # Each connection's thread does its handshake.
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True, do_handshake_on_connect=False)
        self.url = f"https://localhost:{self.server.server_port}"
        self.of = {mode: Issuer(issuer=f"{self.url}/{mode.replace(' ', '-')}", key_id=mode) for mode in MODES}
        self.answers: dict[str, tuple[int, bytes]] = {
            "good": (200, key_set(self.of["good"]).encode()),
            "late": (503, b""),
            "rubbish": (200, b"\x00<html>" + b"[" * 10_000),
            "huge": (200, b" " * (MAX_DOCUMENT_BYTES + 1) + key_set(EVIL).encode()),
            "moved": (302, key_set(EVIL).encode()),
            "moved in its configuration": self._configuration("moved in its configuration", "http://127.0.0.1:9/evil"),
            "slow": (200, b" " * 10_000),
            "silent": (200, b""),
            "error": (500, key_set(EVIL).encode()),
            "evil": (200, key_set(EVIL).encode()),
        }

    def _configuration(self, mode: str, keys_at: str) -> tuple[int, bytes]:
        return 200, json.dumps({"issuer": self.of[mode].issuer, "jwks_uri": keys_at}).encode()

    @property
    def setting(self) -> str:
        """As MINGA_GRANT_KEYS names them."""
        return ",".join(f"{each.issuer}={each.issuer}" for each in self.of.values())

    @contextmanager
    def serving(self) -> Iterator[None]:
        with self.server:
            thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
            thread.start()
            try:
                yield
            finally:
                self.over.set()
                self.server.shutdown()
                thread.join()


class _Handler(BaseHTTPRequestHandler):
    issuers: Issuers

    def do_GET(self) -> None:
        mode = self.path.strip("/").replace("-", " ")
        self.issuers.asked[mode] += 1
        if mode == "silent":
            self.issuers.over.wait(60)
            return
        status, body = self.issuers.answers[mode]
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Location", "/evil")
        self.end_headers()
        if mode == "slow":
            for _ in body:
                self.wfile.write(b" ")
                if self.issuers.over.wait(0.1):
                    return
        self.wfile.write(body)

    def handle(self) -> None:
        with suppress(OSError):
            super().handle()

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def issuers(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Issuers]:
    made = Issuers(tmp_path_factory.mktemp("issuers"))
    with made.serving():
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def net(issuers: Issuers, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Network]:
    """A network whose parts take the grants of all issuers."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("SSL_CERT_FILE", str(issuers.ca))
        environment.setenv("no_proxy", "localhost")
        folder = tmp_path_factory.mktemp("net")
        async with network(folder, secure=True, rights=True, peer_count=1, issuers=issuers.setting) as made:
            yield made


async def status(net: Network, grant: str, name: str = "secret.bin") -> int:
    """What somebody without a certificate gets for it."""
    who = Attacker(net.authority.pem)
    return (await who.get(net.story.net.locator.address, f"/v1/files/{name}", grant)).status_code


async def refusal(call: Any) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return f"{caught.value.code().name} {caught.value.details()}"


async def test_a_grant_of_an_issuer_counts_at_every_part(net: Network, issuers: Issuers, tmp_path: Path) -> None:
    """For what it says; over its member's certificate at registry and peer, where it gets as far as what was asked;
    without one at the locator."""
    good = issuers.of["good"]
    bearer = good.grant("curl", read=("data",))
    assert await status(net, bearer, "data/tiny.txt") == 200
    assert await status(net, bearer, "secret.bin") == 403
    member = Attacker(net.authority.pem, net.authority.issue(tmp_path / "m", "peer", "m"))
    claims = good.claims("spiffe://test/peer/m", publish=("ops",))
    for address, server_name, path, messages in (
        (net.story.net.registry_address, "localhost", REGISTRY + "Publish", [publish("ops/x")]),
        (net.peer.address, "peer-1.peer.minga", PEER + "StoreFile", upload("ops/x")[:2]),
    ):
        call = partial(called, member, address, server_name, path, messages)
        assert not (await refusal(call(good.sign(claims)))).startswith(("UNAUTHENTICATED", "PERMISSION_DENIED"))
        assert (await refusal(call(EVIL.sign(claims)))).startswith("UNAUTHENTICATED")


def publish(name: str) -> pb.PublishRequest:
    return pb.PublishRequest(
        peer_id="m", generation=1, publications=[pb.Publication(name=name, content_id=bytes(32), ticket=b"")]
    )


async def called(who: Attacker, address: str, server_name: str, path: str, messages: Any, grant: str) -> None:
    async with who.channel(address, server_name) as channel:
        made = channel.stream_stream(path, lambda each: each.SerializeToString())
        async for _ in made(iter(messages), timeout=5, metadata=(("authorization", f"Bearer {grant}"),)):
            pass


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode not in ("good", "late")])
async def test_an_issuer_that_is_no_good_gives_no_rights_and_delays_nobody(
    net: Network, issuers: Issuers, mode: str
) -> None:
    """Its own grants are refused, and those of the key that it points to; each answer comes in time, and others are
    served meanwhile."""
    for key in (issuers.of[mode], EVIL):
        claims = issuers.of[mode].claims("curl", read=("*",))
        started = time.monotonic()
        asking = asyncio.create_task(status(net, key.sign(claims)))
        assert await status(net, issuers.of["good"].grant("curl", read=("*",))) == 200
        assert await asking == 401
        assert time.monotonic() - started < FETCH_SECONDS + 2
    assert issuers.asked["evil"] == 0
    assert issuers.asked[mode] >= 1
    log = net.story.net.locator.process.log_path

    async def says_so() -> bool:
        text = await asyncio.to_thread(log.read_text)
        assert "Traceback" not in text
        return "grant_keys_not_fetched" in text

    await eventually(says_so, "the log says that its keys were not fetched")


async def test_unknown_keys_ask_an_issuer_no_more_often_than_seldom(net: Network, issuers: Issuers) -> None:
    """Anybody can name a key that does not exist."""
    before = issuers.asked["good"]
    forged = [
        Issuer(key_id=f"no-{number}").sign(issuers.of["good"].claims("curl", read=("*",))) for number in range(50)
    ]
    assert set(await asyncio.gather(*(status(net, grant) for grant in forged))) == {401}
    assert issuers.asked["good"] - before <= 2


async def test_an_issuer_that_comes_late_or_exchanges_its_key_counts_soon(net: Network, issuers: Issuers) -> None:
    """And one that goes away goes on to count."""
    late = issuers.of["late"]
    grant = late.grant("curl", read=("*",))
    assert await status(net, grant) == 401
    issuers.answers["late"] = 200, key_set(late).encode()

    async def counts(grant: str) -> bool:
        return await status(net, grant) == 200

    await eventually(lambda: counts(grant), "its keys are known", 2 * UNKNOWN_KEY_SECONDS)
    following = Issuer(issuer=late.issuer, key_id="following")
    issuers.answers["late"] = 200, key_set(late, following).encode()
    await eventually(lambda: counts(following.grant("curl", read=("*",))), "so is its next", 2 * UNKNOWN_KEY_SECONDS)
    issuers.answers["late"] = 503, b""
    assert await status(net, Issuer(issuer=late.issuer, key_id="none").grant("curl", read=("*",))) == 401
    for each in (late, following):
        assert await status(net, each.grant("curl", read=("*",))) == 200
