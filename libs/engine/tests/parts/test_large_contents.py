"""Parts of contents above 1 TiB: sparse files, the last chunk, what a status says of them."""

import os
from pathlib import Path

import pytest

from minga_core.chunks import MAX_CHUNK_BYTES, MAX_CONTENT_BYTES, ChunkSet, Geometry
from minga_core.errors import InvalidManifestError, MingaError
from minga_core.ids import digest
from minga_core.manifest import MAX_MANIFEST_BYTES, Manifest
from minga_core.names import parse_name
from minga_engine.parts.part_files import PartFiles, PartTarget, decode_meta, encode_meta
from minga_engine.transfer.download import _bytes_of

TIB = 1 << 40
TAIL = b"the end"


def large(size_bytes: int) -> Manifest:
    """A manifest of zeros with another last chunk."""
    count = Geometry(size_bytes).chunk_count
    return Manifest.from_digests(size_bytes, bytes(32) * (count - 1) + digest(TAIL))


@pytest.mark.parametrize("size_bytes", [TIB + len(TAIL), 3 * TIB + len(TAIL)])
def test_the_last_chunk_of_a_part_above_1_tib_is_written_and_resumed(tmp_path: Path, size_bytes: int) -> None:
    """Offsets above 2^40, a sparse file, and a bitmap of every chunk."""
    manifest = large(size_bytes)
    target = PartTarget(parse_name("large"), manifest, manifest.content_id, 1)
    files = PartFiles(tmp_path, target)
    try:
        opened = files.open()
    except MingaError:
        pytest.skip("the file system has no files of this size")
    last = manifest.geometry.chunk_count - 1
    held = ChunkSet(last + 1, [last])
    files.write(opened.descriptor, last, TAIL)
    files.save(opened.descriptor, held.to_bytes())
    assert os.fstat(opened.descriptor).st_blocks * 512 < 1 << 20
    os.close(opened.descriptor)
    again = PartFiles(tmp_path, target).open()
    assert again.held == held
    assert os.pread(again.descriptor, 100, manifest.geometry.offset(last)) == TAIL
    os.close(again.descriptor)
    assert _bytes_of(held, manifest.geometry) == len(TAIL)
    assert _bytes_of(ChunkSet.full(last + 1), manifest.geometry) == size_bytes


def test_the_largest_manifest_goes_through_every_form() -> None:
    """16 TiB: a million digests; one byte more is no content."""
    manifest = large(MAX_CONTENT_BYTES - MAX_CHUNK_BYTES + len(TAIL))
    assert manifest.geometry.chunk_count == 1 << 20
    assert len(manifest.encode()) == MAX_MANIFEST_BYTES
    target = PartTarget(parse_name("large"), manifest, manifest.content_id, (1 << 63) - 1)
    assert decode_meta(encode_meta(target)) == target
    with pytest.raises(MingaError):
        Geometry(MAX_CONTENT_BYTES + 1)
    longer = bytearray(manifest.encode()) + bytes(32)
    longer[8:16] = (MAX_CONTENT_BYTES + 1).to_bytes(8, "big")
    with pytest.raises(InvalidManifestError):
        Manifest.decode(bytes(longer))
