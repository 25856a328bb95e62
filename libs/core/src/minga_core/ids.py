"""Identities: peers, their generations, and contents."""

import random
import re
from typing import NewType, Self

from blake3 import blake3

from minga_core.errors import InvalidArgumentError

DIGEST_BYTES = 32
CONTENT_ID_PREFIX = "b3:"
_CONTENT_ID = re.compile("b3:[0-9a-f]{64}")
MAX_PEER_ID_BYTES = 128
MAX_ADDRESS_BYTES = 261
"""A DNS name of 253 bytes, brackets, a colon and a port."""

_PEER_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", re.ASCII)
_HOST = re.compile(r"\[[0-9A-Fa-f:.]+(%[A-Za-z0-9._-]+)?\]|[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", re.ASCII)
_GENERATION_RANDOM_BITS = 20
_GENERATION_AHEAD_MILLIS = 24 * 3600 * 1000

PeerId = NewType("PeerId", str)
"""A checked peer id. Made by `parse_peer_id`."""

Generation = NewType("Generation", int)
"""Start time of a peer in ms since 1970 above 20 random bits: unique, and a later start is greater. Fits an int64."""

Address = NewType("Address", str)
"""A checked host:port. Made by `parse_address`."""


def parse_peer_id(text: str) -> PeerId:
    """The peer id that `text` spells: 1 to 128 of A-Z a-z 0-9 . _ -, starting with a letter or digit.

    >>> minga.parse_peer_id("peer-1")
    'peer-1'
    """
    if not _PEER_ID.fullmatch(text):
        raise InvalidArgumentError(
            f"{text[:60]!r} is not a peer id: 1 to {MAX_PEER_ID_BYTES} of A-Z a-z 0-9 . _ -, "
            "starting with a letter or digit"
        )
    return PeerId(text)


def parse_zone(text: str) -> str:
    """The zone that `text` spells: empty, or as a peer id."""
    if text and not _PEER_ID.fullmatch(text):
        raise InvalidArgumentError(f"{text[:60]!r} is not a zone: at most 128 of A-Z a-z 0-9 . _ -")
    return text


def parse_address(text: str) -> Address:
    """The host:port that `text` spells; IPv6 hosts in brackets, port 1 to 65535."""
    host, colon, port = text.rpartition(":")
    good_port = port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 65536
    if len(text) > MAX_ADDRESS_BYTES or not colon or not good_port or not _HOST.fullmatch(host):
        raise InvalidArgumentError(f"{text[:80]!r} is not an address: host:port is wanted, IPv6 hosts in brackets")
    return Address(text)


def parse_gateway_url(text: str) -> str:
    """The URL of a gateway that `text` spells: empty, or `http://` or `https://` with host:port alone."""
    scheme, _, address = text.partition("://")
    if text and scheme not in ("http", "https"):
        raise InvalidArgumentError(f"{text[:80]!r} is not the URL of a gateway: http://host:port is wanted")
    return f"{scheme}://{parse_address(address)}" if text else ""


def new_generation(now_seconds: float, rng: random.Random | None = None) -> Generation:
    """A generation for a peer that starts now. now_seconds: Unix time."""
    bits = (rng or random.SystemRandom()).getrandbits(_GENERATION_RANDOM_BITS)
    return Generation((int(now_seconds * 1000) << _GENERATION_RANDOM_BITS) | bits)


def latest_generation(now_millis: int) -> Generation:
    """The greatest generation that is believed at that Unix time: of a clock that is a day ahead. One that is greater
    would own its peer id for good."""
    return Generation(((now_millis + _GENERATION_AHEAD_MILLIS) << _GENERATION_RANDOM_BITS) - 1)


def parse_generation(value: int) -> Generation:
    """The generation that `value` is: 1 to 2^63 - 1."""
    if not 0 < value < 1 << 63:
        raise InvalidArgumentError(f"{value} is not a generation: 1 to 2^63 - 1")
    return Generation(value)


def digest(data: bytes | bytearray | memoryview) -> bytes:
    """BLAKE3 of `data`, 32 raw bytes. Releases the GIL on large inputs."""
    return blake3(data).digest()


def is_content_id(text: str) -> bool:
    """Whether `ContentId.parse` takes it."""
    return _CONTENT_ID.fullmatch(text) is not None


class ContentId(bytes):
    """BLAKE3 of a content's canonical manifest: 32 raw bytes, written `b3:` and 64 hex digits.

    >>> content_id = client.stat("models/model.bin").content_id
    >>> minga.ContentId.parse(str(content_id)) == content_id
    True
    """

    # Bytes themselves, not an object that has some: peers and registries hold them by the hundred thousand.
    __slots__ = ()

    def __new__(cls, raw: bytes) -> Self:
        """Raises InvalidArgumentError for another number of bytes."""
        if len(raw) != DIGEST_BYTES:
            raise InvalidArgumentError(f"a content id has {DIGEST_BYTES} bytes, not {len(raw)}")
        return super().__new__(cls, raw)

    @classmethod
    def parse(cls, text: str) -> "ContentId":
        """The content id that `text` spells. Raises InvalidArgumentError."""
        if not is_content_id(text):
            raise InvalidArgumentError(f"{text[:80]!r} is not a content id: b3: and 64 lower-case hex digits")
        return cls(bytes.fromhex(text[len(CONTENT_ID_PREFIX) :]))

    @property
    def raw(self) -> bytes:
        """The bytes alone."""
        return bytes(self)

    def __str__(self) -> str:
        return CONTENT_ID_PREFIX + self.hex()

    def __repr__(self) -> str:
        return f"ContentId({self})"

    @property
    def short(self) -> str:
        """The first twelve digits, for display and logs."""
        return CONTENT_ID_PREFIX + self.hex()[:12]
