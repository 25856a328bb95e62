"""Manifests: one encoding, and nothing else passes."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minga_core.chunks import Geometry
from minga_core.errors import InvalidManifestError
from minga_core.ids import ContentId, digest
from minga_core.manifest import HEADER_BYTES, Manifest

DOC = Path(__file__).parents[3] / "docs" / "manifest.md"


def manifest_of(data: bytes) -> Manifest:
    """The manifest of some bytes, made the plain way."""
    geometry = Geometry(len(data))
    cut = [data[geometry.offset(i) : geometry.offset(i) + geometry.length(i)] for i in range(geometry.chunk_count)]
    return Manifest.from_digests(len(data), b"".join(digest(chunk) for chunk in cut))


def vectors() -> list[dict[str, str]]:
    """The test vectors of the document."""
    block = re.search(r"```json\n(.*?)```", DOC.read_text(), re.DOTALL)
    assert block is not None
    found: list[dict[str, str]] = json.loads(block[1])
    return found


@pytest.mark.parametrize("vector", vectors(), ids=lambda vector: str(vector["content"]))
def test_the_documented_vectors_hold(vector: dict[str, str]) -> None:
    """Another implementation that agrees with the document agrees with us."""
    byte, count = re.fullmatch(r"(0x[0-9a-f]{2}) × ([\d,]+)", vector["content"]).groups()  # type: ignore[union-attr]
    manifest = manifest_of(bytes([int(byte, 16)]) * int(count.replace(",", "")))
    assert manifest.encode().hex() == vector["manifest"]
    assert str(manifest.content_id) == vector["content_id"]


@given(st.integers(0, 2_000_000))
def test_encoding_is_a_round_trip(size_bytes: int) -> None:
    """Decoding gives the manifest back, and the id proves it."""
    count = Geometry(size_bytes).chunk_count
    manifest = Manifest.from_digests(size_bytes, b"\x07" * 32 * count)
    assert Manifest.decode(manifest.encode(), expected=manifest.content_id) == manifest


@given(st.binary(max_size=120))
def test_arbitrary_bytes_are_refused(data: bytes) -> None:
    """Nothing but a canonical encoding decodes."""
    try:
        manifest = Manifest.decode(data)
    except InvalidManifestError:
        return
    assert manifest.encode() == data


def test_a_manifest_that_does_not_match_its_id_is_refused() -> None:
    """The content id proves the manifest."""
    honest, other = manifest_of(b"a"), manifest_of(b"b")
    with pytest.raises(InvalidManifestError, match="does not match"):
        Manifest.decode(other.encode(), expected=honest.content_id)


@pytest.mark.parametrize("change", [0, 8, 19, HEADER_BYTES])
def test_one_flipped_bit_changes_the_id_or_breaks_the_form(change: int) -> None:
    """No bit of the encoding is idle."""
    manifest = manifest_of(b"x" * 300_000)
    encoded = bytearray(manifest.encode())
    encoded[change] ^= 1
    with pytest.raises(InvalidManifestError):
        Manifest.decode(bytes(encoded), expected=manifest.content_id)


def test_another_chunk_size_is_refused() -> None:
    """The cut follows from the size alone: there is no second id for the same bytes."""
    encoded = bytearray(manifest_of(b"x").encode())
    encoded[16:20] = (512 * 1024).to_bytes(4, "big")
    with pytest.raises(InvalidManifestError, match="has no chunks of"):
        Manifest.decode(bytes(encoded))


def test_a_chunk_matches_only_with_the_right_size_and_bytes() -> None:
    """One flipped bit, one byte more or less: no match."""
    data = bytes(range(256)) * 1200
    manifest = manifest_of(data)
    first = data[: 256 * 1024]
    assert manifest.matches(0, first)
    assert not manifest.matches(0, first[:-1])
    assert not manifest.matches(0, b"\x01" + first[1:])
    assert not manifest.matches(1, first)


@pytest.mark.parametrize(
    "text", ["", "b3:", "b3:" + "0" * 63, "b3:" + "G" * 64, "b3:" + "A" * 64, "0" * 64, "b3:" + "0" * 65]
)
def test_malformed_content_ids_are_refused(text: str) -> None:
    """Exactly b3: and 64 lower-case hex digits."""
    with pytest.raises(Exception, match="content id"):
        ContentId.parse(text)
