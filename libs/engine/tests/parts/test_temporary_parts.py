"""What a process without a shared folder keeps while it reads."""

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import asyncio, os, sys
from pathlib import Path
from minga_core.manifest import Manifest
from minga_core.names import parse_name
from minga_engine.parts.disk import DiskPool
from minga_engine.parts.part_files import PartTarget
from minga_engine.parts.temporary_parts import TemporaryParts

folder = Path(sys.argv[1])
manifest = Manifest.from_digests(3, bytes(32))
parts = TemporaryParts(DiskPool(1), folder)
target = PartTarget(parse_name("a"), manifest, manifest.content_id, 1)
asyncio.run(parts.begin_part(target, overwrite=False, reading=True))
if not (child := os.fork()):
    sys.exit()
os.waitpid(child, 0)
print(len(list(folder.glob("minga-read-*/*"))))
"""


def test_a_process_that_closes_nothing_leaves_nothing(tmp_path: Path) -> None:
    """Programs seldom close what they read through fsspec. A child's end takes nothing from its parent."""
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert int(ended.stdout) > 0
    assert list(tmp_path.iterdir()) == []
