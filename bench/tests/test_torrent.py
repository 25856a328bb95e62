"""Torrent files, by the vectors of BEP 3."""

from hashlib import sha1
from pathlib import Path

import pytest

from bench.systems.torrent import bencode, make_torrent, piece_bytes


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (3, b"i3e"),
        (b"spam", b"4:spam"),
        ([b"spam", b"eggs"], b"l4:spam4:eggse"),
        ({b"spam": b"eggs", b"cow": b"moo"}, b"d3:cow3:moo4:spam4:eggse"),
    ],
)
def test_values_are_encoded_as_the_bep_says(value: object, encoded: bytes) -> None:
    """Dictionaries are sorted by key."""
    assert bencode(value) == encoded


def test_a_text_is_no_value_of_a_torrent() -> None:
    """Its encoding would have to be guessed."""
    with pytest.raises(TypeError):
        bencode("spam")


@pytest.mark.parametrize(
    ("size", "piece"),
    [(1, 128 << 10), (128 << 20, 128 << 10), (256 << 20, 256 << 10), (1 << 30, 1 << 20), (1 << 40, 16 << 20)],
)
def test_a_piece_is_a_power_of_two_within_limits(size: int, piece: int) -> None:
    """About a thousand pieces a file."""
    assert piece_bytes(size) == piece


def test_the_info_hash_is_that_of_the_info_dictionary(tmp_path: Path) -> None:
    """And every piece has its digest."""
    content = tmp_path / "content.bin"
    content.write_bytes(bytes(300_000))
    info_hash = make_torrent(content, "http://tracker/announce", tmp_path / "t")
    text = (tmp_path / "t").read_bytes()
    info = text[text.index(b"4:info") + 6 : -1]
    assert sha1(info).digest() == info_hash
    assert sha1(bytes(131_072)).digest() in info
