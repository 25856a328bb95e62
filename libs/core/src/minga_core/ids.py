"""Identities: peers, their generations, and contents."""

import random
import re
from dataclasses import dataclass
from typing import NewType

from blake3 import blake3

from minga_core.errors import InvalidArgumentError

DIGEST_BYTES = 32
CONTENT_ID_PREFIX = "b3:"
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
    """The peer id that `text` spells: 1 to 128 of A-Z a-z 0-9 . _ -, starting with a letter or digit."""
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


@dataclass(frozen=True, slots=True, order=True)
class ContentId:
    """BLAKE3 of a content's canonical manifest: 32 raw bytes, written `b3:` and 64 hex digits."""

    raw: bytes

    def __post_init__(self) -> None:
        if len(self.raw) != DIGEST_BYTES:
            raise InvalidArgumentError(f"a content id has {DIGEST_BYTES} bytes, not {len(self.raw)}")

    @classmethod
    def parse(cls, text: str) -> "ContentId":
        """The content id that `text` spells. Raises InvalidArgumentError."""
        digits = text.removeprefix(CONTENT_ID_PREFIX)
        if digits == text or not re.fullmatch(r"[0-9a-f]{64}", digits):
            raise InvalidArgumentError(f"{text[:80]!r} is not a content id: b3: and 64 lower-case hex digits")
        return cls(bytes.fromhex(digits))

    def __str__(self) -> str:
        return CONTENT_ID_PREFIX + self.raw.hex()

    @property
    def short(self) -> str:
        """The first twelve digits, for display and logs."""
        return CONTENT_ID_PREFIX + self.raw.hex()[:12]
