"""Somebody who attacks a network: with some certificate or none, by raw gRPC and raw HTTP."""

import asyncio
import ssl
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc.aio
import httpx

from tests.support.authority import DAY, Authority

LIMIT_SECONDS = 5.0
"""Every refusal comes within this, on a machine that is busy with other tests."""
REFUSALS = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)
"""UNAVAILABLE: the handshake failed."""


@dataclass(frozen=True)
class Attacker:
    """It trusts the network's CA, so that only the network refuses anything. folder: of its certificate, None for none.
    plain: it speaks no TLS."""

    ca: bytes = b""
    folder: Path | None = None
    plain: bool = False

    def channel(self, target: str, server_name: str) -> grpc.aio.Channel:
        """A channel to host:port, whose certificate has `server_name`."""
        if self.plain:
            return grpc.aio.insecure_channel(target)
        own = [(self.folder / file).read_bytes() for file in ("tls.key", "tls.crt")] if self.folder else [None, None]
        tls = grpc.ssl_channel_credentials(self.ca, *own)
        return grpc.aio.secure_channel(target, tls, [("grpc.ssl_target_name_override", server_name)])

    def context(self) -> ssl.SSLContext | None:
        """For a connection of TLS; None for a plain one."""
        if self.plain:
            return None
        context = ssl.create_default_context(cadata=self.ca.decode())
        context.check_hostname = False
        if self.folder:
            context.load_cert_chain(self.folder / "tls.crt", self.folder / "tls.key")
        return context

    async def call(self, target: str, server_name: str, path: str, *messages: Any) -> list[bytes]:
        """All answers to a call of `/service/Method`, as bytes. Raises AioRpcError."""
        async with self.channel(target, server_name) as channel:
            made = channel.stream_stream(path, lambda message: message.SerializeToString())
            while True:
                try:
                    return [answer async for answer in made(iter(messages), timeout=LIMIT_SECONDS)]
                except grpc.aio.AioRpcError as error:
                    # grpc.aio loses the status of a stream that the server ends while it is written to: asked again.
                    if error.details() != "Internal error from Core":
                        raise

    async def http(self, address: str, request: bytes) -> bytes:
        """The head of what HTTP at host:port answers. Raises OSError, IncompleteReadError."""
        host, _, port = address.rpartition(":")
        name = None if self.plain else host
        async with asyncio.timeout(LIMIT_SECONDS):
            reader, writer = await asyncio.open_connection(host, int(port), ssl=self.context(), server_hostname=name)
            try:
                writer.write(request)
                return await reader.readuntil(b"\r\n\r\n")
            finally:
                writer.transport.abort()

    async def get(self, address: str, path: str, grant: str = "") -> httpx.Response:
        """What the locator at host:port answers. Raises httpx.TransportError."""
        async with self._client(address, grant) as client:
            return await client.get(path)

    async def post(self, address: str, path: str, body: Any) -> httpx.Response:
        """As `get`, of JSON that is sent."""
        async with self._client(address) as client:
            return await client.post(path, json=body)

    def _client(self, address: str, grant: str = "") -> httpx.AsyncClient:
        return httpx.AsyncClient(
            base_url=f"{'http' if self.plain else 'https'}://{address}",
            verify=self.context() or False,
            trust_env=False,
            timeout=LIMIT_SECONDS,
            headers={"Authorization": f"Bearer {grant}"} if grant else {},
        )


def strangers(authority: Authority, folder: Path) -> dict[str, Attacker]:
    """One of each kind of those who are no members, or have a role that may do nothing here."""
    other = Authority()

    def with_certificate(name: str, issued_by: Authority = authority, role: str = "peer", **options: Any) -> Attacker:
        return Attacker(authority.pem, issued_by.issue(folder / name, role, "peer-1", **options))

    return {
        "plain": Attacker(plain=True),
        "no certificate": Attacker(authority.pem),
        "foreign CA": with_certificate("foreign", other),
        "self-signed": with_certificate("self-signed", self_signed=True),
        "another network": with_certificate("network", network="other"),
        "expired": with_certificate("expired", life=-DAY),
        "not valid yet": with_certificate("early", start=timedelta(minutes=30)),
        "a locator": with_certificate("locator", role="locator"),
        "no role": with_certificate("boss", role="boss"),
    }


def hello() -> bytes:
    """The first record of a client that speaks TLS."""
    made = ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), made, server_hostname="x").do_handshake()
    return made.read()


async def refused(attack: Any) -> str:
    """How an attack was refused; empty when it was not. attack: awaitable; None or no answers count as refused."""
    try:
        return "" if _got_something(await attack) else "nothing"
    except grpc.aio.AioRpcError as error:
        return f"{error.code().name} {error.details()}" if error.code() in REFUSALS else ""
    except (OSError, httpx.TransportError, asyncio.IncompleteReadError) as error:
        return repr(error)


def _got_something(answer: Any) -> bool:
    if isinstance(answer, httpx.Response):
        return answer.is_success
    if isinstance(answer, bytes):
        return answer.startswith(b"HTTP/1.1 2")
    return bool(list(answer)) if isinstance(answer, Iterable) else answer is not None
