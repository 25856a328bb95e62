"""A torrent file (BEP 3, version 1: SHA-1, which is what aria2 reads and what costs libtorrent least)."""

import os
from collections.abc import Iterator
from hashlib import sha1
from pathlib import Path

MIN_PIECE_BYTES = 128 << 10
MAX_PIECE_BYTES = 16 << 20
PIECES_WANTED = 1024
"""16 hosts at 50 Mbit/s, 128 MiB: aria2 took 1.64 to 1.68 bounds with pieces of 128 and 256 KiB, 1.83 and more with
larger ones; libtorrent (super seeding) 1.65 with 128 KiB, 1.66 with 256, 1.75 with 512, 1.81 with 1 MiB."""

PIECE_VARIABLE = "BENCH_PIECE_BYTES"
"""For trying other sizes out."""


def piece_bytes(size_bytes: int) -> int:
    """A power of two so that a file has about a thousand pieces, at least 128 KiB and at most 16 MiB."""
    if forced := os.environ.get(PIECE_VARIABLE):
        return int(forced)
    wanted = max(MIN_PIECE_BYTES, min(MAX_PIECE_BYTES, size_bytes // PIECES_WANTED))
    return 1 << (wanted - 1).bit_length()


def make_torrent(content: Path, tracker: str, target: Path) -> bytes:
    """Writes the torrent of one file; its info hash (20 bytes). Blocking."""
    size = content.stat().st_size
    length = piece_bytes(size)
    info = {
        b"length": size,
        b"name": content.name.encode(),
        b"piece length": length,
        b"pieces": b"".join(_piece_digests(content, length)),
    }
    target.write_bytes(bencode({b"announce": tracker.encode(), b"info": info}))
    return sha1(bencode(info), usedforsecurity=False).digest()


def bencode(value: object) -> bytes:
    """BEP 3's encoding; a dictionary's keys are bytes, and are sorted."""
    match value:
        case int():
            return b"i%de" % value
        case bytes():
            return b"%d:%s" % (len(value), value)
        case list():
            return b"l" + b"".join(map(bencode, value)) + b"e"
        case dict():
            items = sorted(value.items())
            return b"d" + b"".join(bencode(key) + bencode(item) for key, item in items) + b"e"
    raise TypeError(f"no bencoding of {type(value).__name__}")


def _piece_digests(content: Path, length: int) -> Iterator[bytes]:
    with content.open("rb") as file:
        while piece := file.read(length):
            yield sha1(piece, usedforsecurity=False).digest()
