"""The cluster's DNS: names of Services and of their pods, over UDP. Everything else does not exist.

The first half is pure: names from Services and pods, answers from queries. RFC 1035 for the format.
"""

import asyncio
import random
import struct
from collections.abc import Callable, Iterable, Mapping
from typing import Self, cast

from deploy.tests.cluster.endpoints import Endpoint, named_in_dns
from deploy.tests.cluster.manifests import NAMESPACE, Service

DOMAIN = "cluster.local"
SEARCH = (f"{NAMESPACE}.svc.{DOMAIN}", f"svc.{DOMAIN}", DOMAIN)
NDOTS = 5
"""SEARCH and NDOTS are as kubelet writes them."""
PORT = 53
TTL_SECONDS = 1
_A, _AAAA, _IN = 1, 28, 1
_NO_ERROR, _FORMAT_ERROR, _NO_SUCH_NAME = 0, 1, 3
_HEADER = struct.Struct("!6H")
_RESPONSE, _AUTHORITATIVE, _RECURSION_DESIRED, _RECURSION_AVAILABLE = 0x8000, 0x0400, 0x0100, 0x0080

Names = Mapping[str, list[str]]
"""Lower-case full names without the last dot → IPv4 addresses; a name without any exists, and has no address now."""


def resolv_conf(server: str) -> str:
    """A pod's /etc/resolv.conf."""
    return f"search {' '.join(SEARCH)}\nnameserver {server}\noptions ndots:{NDOTS}\n"


def names_of(services: Iterable[Service], virtual: Mapping[str, str], pods: Iterable[Endpoint]) -> dict[str, list[str]]:
    """Every name that has an answer. virtual: addresses of the Services that have one."""
    pods = list(pods)
    made: dict[str, list[str]] = {}
    for service in services:
        full = f"{service.name}.{NAMESPACE}.svc.{DOMAIN}"
        if not service.headless:
            made[full] = [virtual[service.name]]
            continue
        behind = named_in_dns(service, pods)
        made[full] = [pod.ip for pod in behind]
        for pod in behind:
            # A pod of this subdomain by its own name, any other by its address.
            host = pod.name if pod.spec.subdomain == service.name else pod.ip.replace(".", "-")
            made[f"{host}.{full}"] = [pod.ip]
    return made


def answer(query: bytes, names: Names, shuffle: Callable[[list[str]], None] = random.shuffle) -> bytes | None:
    """The response to a query; None for what is no query."""
    if len(query) < _HEADER.size:
        return None
    number, flags, questions, *_ = _HEADER.unpack_from(query)
    if flags & _RESPONSE:
        return None
    asked = _question(query) if questions == 1 else None
    common = _RESPONSE | _AUTHORITATIVE | _RECURSION_AVAILABLE | (flags & _RECURSION_DESIRED)
    if asked is None:
        return _HEADER.pack(number, common | _FORMAT_ERROR, 0, 0, 0, 0)
    name, kind, question = asked
    addresses = names.get(name.lower())
    if addresses is None:
        return _HEADER.pack(number, common | _NO_SUCH_NAME, 1, 0, 0, 0) + question
    # Other types, AAAA above all: the name exists, and has none of them.
    found = list(addresses) if kind == _A else []
    shuffle(found)
    records = b"".join(
        b"\xc0\x0c" + struct.pack("!HHIH4B", _A, _IN, TTL_SECONDS, 4, *map(int, address.split(".")))
        for address in found
    )
    return _HEADER.pack(number, common | _NO_ERROR, 1, len(found), 0, 0) + question + records


def _question(query: bytes) -> tuple[str, int, bytes] | None:
    """Name, type and the bytes of the only question; None when they make no sense."""
    labels, place = [], _HEADER.size
    while place < len(query) and (size := query[place]):
        if size > 63 or place + 1 + size > len(query):
            return None
        labels.append(query[place + 1 : place + 1 + size].decode("ascii", errors="replace"))
        place += 1 + size
    end = place + 5
    if end > len(query):
        return None
    (kind,) = struct.unpack_from("!H", query, place + 1)
    return ".".join(labels), kind, query[_HEADER.size : end]


class DnsServer(asyncio.DatagramProtocol):
    """Answers on one address. `names` may be replaced at any time."""

    def __init__(self) -> None:
        self.names: Names = {}
        self._transport: asyncio.DatagramTransport | None = None

    @classmethod
    async def start(cls, address: str) -> Self:
        """Serves until closed."""
        loop = asyncio.get_running_loop()
        _, server = await loop.create_datagram_endpoint(cls, local_addr=(address, PORT))
        return server

    def close(self) -> None:
        """Stops serving."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """See asyncio."""
        response = answer(data, self.names)
        if response is not None and self._transport is not None:
            self._transport.sendto(response, addr)
