"""Writing at an offset: whole, whatever the kernel takes at a time, and in pieces."""

import os
from pathlib import Path

import pytest

from minga_engine.parts.holes import WRITE_BYTES, write_at

from .support import noise


@pytest.mark.parametrize("taken", [WRITE_BYTES, 1000])
def test_what_is_written_in_pieces_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken: int) -> None:
    data, pieces, write = noise(2 * WRITE_BYTES + 4321), list[int](), os.pwrite

    def some(descriptor: int, piece: memoryview, offset: int) -> int:
        pieces.append(len(piece))
        return write(descriptor, piece[:taken], offset)

    monkeypatch.setattr(os, "pwrite", some)
    with (tmp_path / "file").open("wb") as file:
        write_at(file.fileno(), data, 7)

    assert (tmp_path / "file").read_bytes() == bytes(7) + data
    assert max(pieces) == WRITE_BYTES
